"""The threshold of each label, from which it is predicted."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve
from torch import Tensor

from project.audit.class_thresholds import ROUNDING
from project.errors import UserError
from project.modules.tasks import Multilabel
from project.modules.tasks.multilabel import LabelCounts
from project.output import pluralize
from project.runs.statistics import precision_recall_f1, wilson_interval

FEW = 10
"""Samples with and without a label, below which its threshold is called uncertain."""


class Found(NamedTuple):
    """Threshold of a label, and whether the wanted precision or recall is reached on the samples it was chosen on."""

    threshold: float
    reached: bool


def label_threshold(
    score: NDArray[np.float64], truth: NDArray[np.bool_], precision: float | None = None, recall: float | None = None
) -> Found:
    """Return the threshold with the best F1, or with the best recall at a precision, or precision at a recall.

    If no threshold has the wanted precision, it is that of the best F1.

    Args:
        score: Probability of the label, (N,).
        truth: Whether the samples have the label, (N,); some must, and some must not.
        precision: Wanted precision, in (0, 1).
        recall: Wanted recall, in (0, 1).
    """
    precisions, recalls, thresholds = precision_recall_curve(truth, score)
    precisions, recalls = precisions[:-1], recalls[:-1]  # the last ones have no threshold
    quality = 2 * precisions * recalls / np.maximum(precisions + recalls, 1e-12)
    allowed = np.ones(len(thresholds), bool)
    if precision is not None:
        allowed = precisions >= precision - 1e-12
    elif recall is not None:
        allowed = recalls >= recall - 1e-12
    if reached := bool(allowed.any()):
        wanted = quality if precision is recall is None else recalls if recall is None else precisions
        quality = np.where(allowed, wanted, -1)
    best = int(np.flatnonzero(quality == quality.max())[-1])
    # Halfway to the next lower score, so that rounding does not matter.
    lower = thresholds[best - 1] if best else thresholds[best] - 2 * ROUNDING
    return Found(min(1.0, max(0.0, float(thresholds[best] + lower) / 2)), reached)


def fit_label_thresholds(
    task: Multilabel, outputs: dict[str, tuple[Tensor, Tensor]], precision: float | None, recall: float | None
) -> list[float]:
    """Return a threshold for each label, fitted on val; print metrics of val and test.

    Labels that all images of val have, or none, keep 0.5.

    Args:
        task: The task, with the thresholds so far.
        outputs: By split, outputs, float64 (N, labels), and targets, float32 (N, labels), NaN if unknown.
        precision: Wanted precision of each label; by default thresholds have the best F1.
        recall: Wanted recall of each label.
    """
    names, (scores, truth) = task.target.label_names, (x.numpy() for x in _probabilities(task, *outputs["val"]))
    limits, notes = [], dict[str, list[str]]()
    for name, score, label in zip(names, scores.T, truth.T, strict=True):
        known = ~np.isnan(label)
        present, absent = int((label == 1).sum()), int((label == 0).sum())
        if not present or not absent:
            limits.append(0.5)
            notes.setdefault("not both present and absent in val, keep the threshold 0.5", []).append(name)
            continue
        found = label_threshold(score[known], label[known] == 1, precision, recall)
        limits.append(found.threshold)
        if not found.reached:
            notes.setdefault(f"no threshold has a precision of {precision:.2%} on val: best F1", []).append(name)
        if min(present, absent) < FEW:
            note = f"fewer than {FEW} {task.sample}s with or without the label in val: uncertain threshold"
            notes.setdefault(note, []).append(name)
    if len(limits) == len(notes.get("not both present and absent in val, keep the threshold 0.5", ())):
        units = f"{task.sample}s"
        raise UserError(f"val has no label that some {units} have and others do not: calibrate on more {units}")
    counts = _print_splits(
        task, outputs, {"before": task.thresholds, "after": torch.tensor(limits)}, precision is recall
    )
    _print_labels(task, limits, counts, "recall" if recall is not None else "precision" if precision else "")
    for note, labels in notes.items():
        more = ", ..." if len(labels) > 5 else ""
        print(f"{pluralize(len(labels), 'label')} with {note}: {', '.join(labels[:5])}{more}")
    return limits


def _probabilities(task: Multilabel, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return task.predict(task.calibrated(outputs)), target


def _print_splits(
    task: Multilabel, outputs: dict[str, tuple[Tensor, Tensor]], thresholds: dict[str, Tensor], by_f1: bool
) -> dict[str, Tensor]:
    """Print metrics before and after; return the counts of each split afterwards."""
    print(f"\n{'':<14}{f'{task.sample}s':>8}{'F1':>10}{'precision':>12}{'recall':>10}{'subset accuracy':>18}")
    counts = {}
    for split, (logits, target) in outputs.items():
        f1 = dict[str, float]()
        for when, limits in thresholds.items():
            metric = LabelCounts(lambda x, limits=limits: task.predict(x) >= limits, logits.shape[1])  # type: ignore[misc]
            metric.update(torch.zeros(()), logits, target)
            result = metric.compute()
            counts[split], f1[when] = result.details["counts"], float(result.scalars["f1"])
            cells = (("f1", 10), ("precision", 12), ("recall", 10), ("subset_acc", 18))
            figures = "".join(f"{float(result.scalars[name]):>{width}.2%}" for name, width in cells)
            print(f"{f'{split} {when}':<14}{len(target):>8,}{figures}")
    if "test" not in outputs:
        print(f"no test split: the thresholds were fitted on these {task.sample}s, so figures after it are optimistic")
    elif f1["after"] < f1["before"] and by_f1:
        print(f"F1 decreased on test: val may have too few {task.sample}s to choose thresholds")
    return counts


def _print_labels(task: Multilabel, limits: list[float], counts: dict[str, Tensor], wanted: str) -> None:
    """Print thresholds and, of test if there is such a split, metrics, with an interval of the wanted one."""
    split, names = "test" if "test" in counts else "val", task.target.label_names
    correct, present, predicted, _ = counts[split]
    rates = precision_recall_f1(correct, present, predicted)
    width = max(len("label"), *(len(name) for name in names)) + 2
    head = f"{'threshold':>9}{f'{split} {task.sample}s':>14}{'precision':>11}{'recall':>9}{'F1':>9}"
    print(f"\n{'label':<{width}}{head}{f'95 % CI of {wanted}':>23}" if wanted else f"\n{'label':<{width}}{head}")
    for i, (name, limit) in enumerate(zip(names, limits, strict=True)):
        cells = f"{limit:>9.4f}{int(present[i]):>14,}"
        cells += "".join(
            f"{float(rates[key][i]):>{size}.1%}" for key, size in (("precision", 11), ("recall", 9), ("f1", 9))
        )
        total = int((present if wanted == "recall" else predicted)[i])
        if wanted and total:
            low, high = wilson_interval(int(correct[i]), total)
            cells += f"{f'{low:.1%} to {high:.1%}':>23}"
        print(f"{name:<{width}}{cells}")
