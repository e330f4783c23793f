"""The command `leak_test`: whether the loss of an image tells that the model was trained on it."""

import json
import math
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata

from project.audit.model import answers
from project.errors import UserError
from project.files import write_text
from project.interface import Split
from project.modules.tasks.multiclass import Multiclass
from project.runs.folder import output_folder
from project.runs.job import Trained
from project.runs.statistics import wilson_interval

LEAK = "leak_test.json"
FALSE_ALARMS = 0.001  # share of the new images that an attacker may take for trained on: Carlini et al. 2022


def leak_test(trained: Trained, images: int = 10_000) -> None:
    """Try to tell by the loss which images the model was trained on; leak_test.json in the model's run.

    Yeom et al., Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, 2018.

    Args:
        trained: The classifier, the images that it was trained on, and a split that it was not.
        images: Use at most this many of either kind, evenly mixed.

    Raises:
        UserError: no images wanted, or not those that the model was trained on; see also `Trained.load`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    trained.load(labeled=True)
    data, known = trained.data, trained.module.data_description
    assert known is not None and data.index is not None
    if known.fingerprint != data.index.fingerprint():
        raise UserError(
            f"the images of {data.folder}, or their splits, are not those that the model was trained on: leak_test must"
            " know which it has seen"
        )
    data.sampling, data.sampler = "natural", None  # every image once, however it was drawn in training
    others = data.test_split
    (seen, seen_right), (new, new_right) = (_losses(trained, split, images) for split in ("train", others))
    found = membership(-seen, -new) | {"split": others, "train_accuracy": seen_right, "accuracy": new_right}
    found |= {"train_loss": float(seen.mean()), "loss": float(new.mean())}
    print(f"\n{'':<16}{'images':>8}{'accuracy':>10}{'mean loss':>11}")
    for name, loss, right in (("trained on", seen, seen_right), (f"{others} split", new, new_right)):
        print(f"{name:<16}{len(loss):>8,}{right:>10.2%}{loss.mean():>11.4f}")
    print("\n" + "\n".join(sentences(found)))
    file = output_folder(trained.checkpoint) / LEAK
    write_text(file, json.dumps(found, indent=2))
    print(file)


def _losses(trained: Trained, split: Split, most: int) -> tuple[NDArray[np.float64], float]:
    """Loss of each image, without augmentation, and the share of them that is right."""
    task, (scores, label) = trained.module.task, answers(trained, split, most)
    assert isinstance(task, Multiclass)
    scores = scores / float(task.temperature)
    return F.cross_entropy(scores, label, reduction="none").numpy(), float((scores.argmax(1) == label).double().mean())


def membership(seen: NDArray[np.float64], new: NDArray[np.float64]) -> dict[str, Any]:
    """How well a figure tells images that were trained on, `seen`, where it is to be higher, from `new` ones."""
    m, n = len(seen), len(new)
    ranks = rankdata(np.concatenate([seen, new]))
    above = (ranks[:m] - rankdata(seen)) / n  # share of the new images that each seen one lies above, ties as half
    below = 1 - (ranks[m:] - rankdata(new)) / m
    auc = float(above.mean())
    # DeLong et al., Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves, 1988
    error = math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n) if min(m, n) > 1 else math.nan
    allowed = int(FALSE_ALARMS * n)
    hits = int((seen > np.sort(new)[::-1][allowed]).sum())
    interval = [max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error)]
    found = {"found": hits / m, "found_interval": wilson_interval(hits, m), "false_alarms": allowed}
    return {"auc": auc, "auc_interval": interval, **found, "trained_on": m, "new": n}


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
        verdict = "The loss tells training images from others, if both are alike in all else"
        return [*lines, f"{verdict}; more images, augmentation or private training help."]
    verdict = "This attack finds nothing; a stronger one may."
    return [*lines, f"{verdict} Only training that is private by proof bounds them all."]
