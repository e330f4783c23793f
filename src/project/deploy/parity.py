"""Parity check: comparison of an exported file with the checkpoint it was exported from."""

from pathlib import Path

import numpy as np
import torch

from project.datamodules.images.augment import is_fixed
from project.datamodules.images.dataset import Images
from project.datamodules.images.indexed import IndexedImageModule
from project.datamodules.sampler import Request
from project.deploy.load import load_exported
from project.errors import UserError
from project.interface import Target
from project.modules import Classifier
from project.runs.predictor import Scores

TOLERANCE = 1e-4  # maximum difference, relative to `Target.scale`; a different order of summation causes about 1e-7


def parity_images(data: IndexedImageModule) -> Images:
    """Return the images of the test split, of val if there is no test split, or all images if they have no labels.

    Raises:
        UserError: If the datamodule has deterministic item transforms, which an exported file does not contain.
    """
    if fixed := [type(transform).__name__ for transform in data.item_transforms if is_fixed(transform)]:
        raise UserError(
            f"data.item_transforms {', '.join(fixed)} preprocess every image, and an exported file cannot contain them:"
            " its predictions would be correct only for images that were transformed beforehand"
        )
    assert data.index is not None
    images = data.dataset(data.test_split if data.index.names else "")
    images.pixels = None  # the exported file is checked on images of their original size
    return images


def agreement(target: Target, one: Scores, other: Scores) -> float:
    """Return the share of samples, in [0, 1], with the same predicted class or labels in two arrays, (N, outputs)."""
    return float(np.mean([target.predicted(a) == target.predicted(b) for a, b in zip(one, other, strict=True)]))


def check_parity(file: Path, model: Classifier, images: Images) -> str:
    """Compare the predictions of a file and its model, and return a summary.

    Up to 100 images are predicted one at a time at their original size, and again fitted, as one batch.

    Raises:
        UserError: If the predictions differ by more than `TOLERANCE`; the file is then deleted.
    """
    exported = load_exported(file)
    positions = images.even(100)
    rows = images.rows[positions].tolist()
    with torch.inference_mode():
        expected = model.predictions(images[Request(0, positions)].inputs).numpy()
    raw = (images.decoded(row)[None].contiguous().numpy() for row in rows)
    single = np.concatenate([exported.scores(pixels) for pixels in raw])
    batch = exported.scores(np.stack([images.fitted(row).contiguous().numpy() for row in rows]))
    target = model.data_description.target
    difference = float((np.abs(np.stack([single, batch]) - expected) / target.scale).max())
    differs = f"{target.scores_name} differ by at most {difference:.1e}"
    if target.scores_name == "probabilities":
        agreed = min(agreement(target, expected, actual) for actual in (single, batch))
        differs += f", {agreed:.2%} of predictions agree"
    else:
        differs += " (relative)"
    summary = f"{len(rows)} images, individually and as a batch: {differs}"
    if not difference <= TOLERANCE:  # also true for NaN
        file.unlink()
        raise UserError(
            f"the exported file disagrees with the checkpoint and was deleted ({summary}; the tolerance is"
            f" {TOLERANCE:.0e}): the network uses an operation that this format does not reproduce, so try another"
            " --format"
        )
    return summary
