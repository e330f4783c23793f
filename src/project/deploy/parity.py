"""Parity check: comparison of an exported file with the checkpoint it was exported from."""

from pathlib import Path

import numpy as np
import torch

from project.datamodules.dataset import IndexedDataset
from project.datamodules.indexed import IndexedDataModule
from project.datamodules.sampler import Request
from project.deploy.load import load_exported
from project.errors import UserError
from project.interface import Target
from project.modules import Classifier
from project.output import pluralize
from project.runs.predictor import Scores

TOLERANCE = 1e-4  # maximum difference, relative to `Target.scale`; a different order of summation causes about 1e-7


def parity_samples(data: IndexedDataModule) -> IndexedDataset:
    """Return the samples of the test split, of val if there is no test split, or all samples if they have no labels.

    Raises:
        UserError: If the datamodule has deterministic item transforms, which an exported file does not contain.
    """
    if fixed := data.fixed_transforms:
        raise UserError(
            f"data.item_transforms {', '.join(fixed)} preprocess every image, and an exported file cannot contain them:"
            " its predictions would be correct only for images that were transformed beforehand"
        )
    assert data.index is not None
    samples = data.dataset(data.test_split if data.index.names else "")
    samples.pixels = None  # the exported file is checked on images of their original size
    return samples


def agreement(target: Target, one: Scores, other: Scores) -> float:
    """Return the share of samples, in [0, 1], with the same predicted class or labels in two arrays, (N, outputs)."""
    return float(np.mean([target.predicted(a) == target.predicted(b) for a, b in zip(one, other, strict=True)]))


def check_parity(file: Path, model: Classifier, samples: IndexedDataset) -> str:
    """Compare the predictions of a file and its model, and return a summary.

    Up to 100 samples, among them the shortest and the longest, are predicted one at a time, images at their original
    size, and again as one batch.

    Raises:
        UserError: If the predictions differ by more than `TOLERANCE`; the file is then deleted.
    """
    exported, inputs = load_exported(file), model.data_description.input
    positions = samples.even(100)
    if (lengths := samples.lengths) is not None and positions:
        positions = sorted({*positions[1:-1], int(lengths.argmin()), int(lengths.argmax())})
    rows = samples.rows[positions].tolist()
    with torch.inference_mode():
        expected = model.predictions(samples[Request(0, positions)].inputs).numpy()
    single = np.concatenate([exported.scores(inputs.stack([samples.raw(row, fitted=False)])) for row in rows])
    batch = exported.scores(inputs.stack([samples.raw(row) for row in rows]))
    target = model.data_description.target
    difference = float((np.abs(np.stack([single, batch]) - expected) / target.scale).max())
    differs = f"{target.scores_name} differ by at most {difference:.1e}"
    if target.scores_name == "probabilities":
        agreed = min(agreement(target, expected, actual) for actual in (single, batch))
        differs += f", {agreed:.2%} of predictions agree"
    else:
        differs += " (relative)"
    summary = f"{pluralize(len(rows), inputs.kind)}, individually and as a batch: {differs}"
    if not difference <= TOLERANCE:  # also true for NaN
        file.unlink()
        raise UserError(
            f"the exported file disagrees with the checkpoint and was deleted ({summary}; the tolerance is"
            f" {TOLERANCE:.0e}): the network uses an operation that this format does not reproduce, so try another"
            " --format"
        )
    return summary
