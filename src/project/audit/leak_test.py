"""The command `leak_test`: whether the loss of an image tells that the model was trained on it."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata

from project.audit.model import batches, logits
from project.datamodules import ImageDataModule
from project.errors import UserError
from project.files import write_text
from project.interface import Split
from project.modules import Classifier
from project.report.figures import wilson
from project.run import home_of
from project.trained import bring_up

LEAK = "leak_test.json"
FALSE_ALARMS = 0.001
"""Share of the images that were not trained on that an attacker may take for trained on: Carlini et al. 2022."""


def leak_test(trainer: L.Trainer, model: Classifier, data: ImageDataModule, checkpoint: Path, images: int) -> None:
    """Measure, print and write leak_test.json into the run of the checkpoint, or beside one that lies in none.

    Yeom et al., Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, 2018.

    Raises:
        UserError: no images wanted, or not those that the model was trained on; see also `bring_up`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    bring_up(trainer, model, data, checkpoint, labelled=True)
    assert model.data_description is not None and data.index is not None
    if model.data_description.fingerprint != data.index.fingerprint():
        raise UserError(
            f"the images of {data.folder}, or their splits, are not those that the model was trained on: leak_test must"
            " know which it has seen"
        )
    data.sampling = "natural"  # every image once, however it was drawn in training
    others = data.test_split
    (seen, seen_right), (new, new_right) = (_losses(model, data, split, images) for split in ("train", others))
    found = {
        **membership(-seen, -new),
        "split": others,
        "train_accuracy": seen_right,
        "accuracy": new_right,
        "train_loss": float(seen.mean()),
        "loss": float(new.mean()),
    }
    print(f"\n{'':<16}{'images':>8}{'accuracy':>10}{'mean loss':>11}")
    for name, loss, right in (("trained on", seen, seen_right), (f"{others} split", new, new_right)):
        print(f"{name:<16}{len(loss):>8,}{right:>10.2%}{loss.mean():>11.4f}")
    print("\n" + "\n".join(sentences(found)))
    file = home_of(checkpoint) / LEAK
    write_text(file, json.dumps(found, indent=2))
    print(file)


def _losses(model: Classifier, data: ImageDataModule, split: Split, most: int) -> tuple[NDArray[np.float64], float]:
    """Loss of each image, without augmentation, and the share of them that is right."""
    losses, right = [], []
    for image, label in batches(model, data, split, min(most, data.split_sizes()[split])):
        scores = logits(model, image).double() / model.temperature
        losses.append(F.cross_entropy(scores, label, reduction="none").cpu())
        right.append((scores.argmax(1) == label).cpu())
    return torch.cat(losses).numpy(), float(torch.cat(right).double().mean())


def membership(seen: NDArray[np.float64], new: NDArray[np.float64]) -> dict[str, Any]:
    """How well a figure tells images that were trained on, `seen`, where it is to be higher, from `new` ones.

    The interval of the AUC is that of DeLong et al., Comparing the Areas under Two or More Correlated ROC Curves, 1988;
    that of the share found is Wilson's, for the threshold as it is.
    """
    m, n = len(seen), len(new)
    ranks = rankdata(np.concatenate([seen, new]))
    above = (ranks[:m] - rankdata(seen)) / n  # share of the new images that each seen one lies above, ties as half
    below = 1 - (ranks[m:] - rankdata(new)) / m
    auc = float(above.mean())
    error = math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n) if min(m, n) > 1 else math.nan
    allowed = int(FALSE_ALARMS * n)
    hits = int((seen > np.sort(new)[::-1][allowed]).sum())
    low, high = wilson(hits, m)
    return {
        "auc": auc,
        "auc_interval": [max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error)],
        "found": hits / m,
        "found_interval": [low, high],
        "false_alarms": allowed,
        "trained_on": m,
        "new": n,
    }


def sentences(found: dict[str, Any]) -> list[str]:
    """What the figures say, and what they do not."""
    (low, high), (least, most) = found["auc_interval"], found["found_interval"]
    lines = [
        f"AUC {found['auc']:.3f} (95 % interval {low:.3f} to {high:.3f}): so often the loss is lower on an image"
        " that was trained on than on a new one; 0.5 is chance.",
        f"{found['found']:.2%} (95 % interval {least:.2%} to {most:.2%}) of the images trained on are found at"
        f" {found['false_alarms']:,} false alarms among {found['new']:,} new images; by chance about"
        f" {found['false_alarms'] / found['new']:.2%}.",
    ]
    if found["new"] < 1 / FALSE_ALARMS:
        lines.append(f"{found['new']:,} new images are too few to tell what happens at a false alarm in a thousand.")
    if found["split"] == "val":
        lines.append("These are val images, which chose the checkpoint: with a test split the AUC may be higher.")
    if low > 0.5:
        lines.append(
            "The loss tells training images from others, if both are alike in all else; more images, augmentation or"
            " private training help."
        )
    else:
        lines.append(
            "This attack finds nothing; a stronger one may. Only training that is private by proof bounds them all."
        )
    return lines
