"""Whether an exported file gives the answers of the checkpoint that it was made from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from project.datamodules import ImageDataModule
from project.datamodules.augment import is_fixed
from project.datamodules.decode import decode_image
from project.datamodules.loader import Images
from project.datamodules.sampler import Request
from project.deploy.load import load_exported
from project.errors import UserError
from project.modules import Classifier

CHECKED = 100
"""Images, at most, that both are asked about."""
TOLERANCE = 1e-4
"""What probabilities may differ by; rounding in another order makes some 1e-7."""


class Parity(NamedTuple):
    """What was found: the images asked about, the largest difference of a probability, the share of equal answers."""

    images: int
    difference: float
    equal: float

    def __str__(self) -> str:
        return (
            f"{self.images} images, one by one and as a batch: probabilities differ by at most {self.difference:.1e},"
            f" {self.equal:.2%} of answers are the same"
        )


def checked_images(data: ImageDataModule) -> Images:
    """The images of a datamodule that is set up: its test split, or val where there is none, or all without labels.

    Raises:
        UserError: the datamodule changes images by transforms of its own, which no exported file would know.
    """
    if fixed := [type(transform).__name__ for transform in data.item_transforms if is_fixed(transform)]:
        raise UserError(
            f"data.item_transforms {', '.join(fixed)} change each image before the model sees it, and an exported file"
            " knows nothing of them: it would be right only for images that went through them before"
        )
    assert data.index is not None
    rows = data.index.rows(data.test_split if data.index.class_names else "")
    return Images(data.index, rows, data.description.image_size, read=data.origin.reader())


def parity(file: Path, model: Classifier, images: Images) -> Parity:
    """Ask an exported file about pictures as they were decoded, and its model about the same by way of `predict`.

    Each picture is asked about alone, at its own size, and again in one batch of all, as `predict` sees them.
    """
    exported = load_exported(file)
    positions = images.even(CHECKED)
    image = images[Request(0, positions)].image
    with torch.inference_mode():
        wanted = model.probabilities(image).numpy()
    rows = images.rows[positions].tolist()
    raw = [images.index.hide(decode_image(images.read(row)), row)[None].contiguous().numpy() for row in rows]
    alone = np.concatenate([exported.probabilities(pixels) for pixels in raw])
    together = exported.probabilities(image.contiguous().numpy())
    difference = max(float(np.abs(found - wanted).max()) for found in (alone, together))
    equal = min(float((found.argmax(1) == wanted.argmax(1)).mean()) for found in (alone, together))
    return Parity(len(positions), difference, equal)


def require_parity(file: Path, model: Classifier, images: Images) -> Parity:
    """As `parity`.

    Raises:
        UserError: the file gives other answers; it is deleted.
    """
    found = parity(file, model, images)
    if not found.difference <= TOLERANCE:  # nor may it be no number
        file.unlink()
        raise UserError(
            f"the exported file disagrees with the checkpoint and was deleted ({found}; {TOLERANCE:.0e} are allowed):"
            " the net does something that this format does not hold faithfully, so try another --format"
        )
    return found
