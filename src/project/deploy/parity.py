"""Whether an exported file gives the answers of the checkpoint that it was made from."""

from pathlib import Path

import numpy as np
import torch

from project.datamodules import ImageDataModule
from project.datamodules.images.augment import is_fixed
from project.datamodules.images.dataset import Images
from project.datamodules.images.decode import decode_image
from project.datamodules.sampler import Request
from project.deploy.load import load_exported
from project.errors import UserError
from project.modules import Classifier

TOLERANCE = 1e-4  # what probabilities may differ by; rounding in another order makes some 1e-7


def parity_images(data: ImageDataModule) -> Images:
    """Return the images of the test split, or of val where there is none, or all without labels.

    Transforms of the datamodule's own that change each image are refused: no exported file would know of them.
    """
    if fixed := [type(transform).__name__ for transform in data.item_transforms if is_fixed(transform)]:
        raise UserError(
            f"data.item_transforms {', '.join(fixed)} change each image before the model sees it, and an exported file"
            " knows nothing of them: it would be right only for images that went through them before"
        )
    assert data.index is not None
    rows = data.index.rows(data.test_split if data.index.class_names else "")
    return Images(data.index, rows, data.description.image.height, read=data.origin.reader())


def check_parity(file: Path, model: Classifier, images: Images) -> str:
    """Return in words how alike a file and its model answer; a file that answers otherwise is deleted and refused.

    Each image is decoded and asked about alone, at its own size, and again in one batch of all, as `predict` sees them.
    """
    exported = load_exported(file)
    positions = images.even(100)
    image = images[Request(0, positions)].inputs
    with torch.inference_mode():
        wanted = model.predictions(image).numpy()
    rows = images.rows[positions].tolist()
    raw = [images.index.hide(decode_image(images.read(row)), row)[None].contiguous().numpy() for row in rows]
    alone = np.concatenate([exported.probabilities(pixels) for pixels in raw])
    found = np.stack([alone, exported.probabilities(image.contiguous().numpy())])
    difference, equal = np.abs(found - wanted).max(), (found.argmax(2) == wanted.argmax(1)).mean(1).min()
    told = (
        f"{len(rows)} images, one by one and as a batch: probabilities differ by at most {difference:.1e},"
        f" {equal:.2%} of answers are the same"
    )
    if not difference <= TOLERANCE:  # nor may it be no number
        file.unlink()
        raise UserError(
            f"the exported file disagrees with the checkpoint and was deleted ({told}; {TOLERANCE:.0e} are allowed):"
            " the net does something that this format does not hold faithfully, so try another --format"
        )
    return told
