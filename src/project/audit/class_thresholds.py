"""Confidence thresholds and conformal prediction sets of mutually exclusive classes."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from project.errors import UserError
from project.interface import ClassTarget
from project.runs.statistics import wilson_interval

ROUNDING = 2e-6
"""More than float32 rounding of a probability, which must not decide whether it reaches a threshold."""


def confidence_threshold(confidence: Tensor, correct: Tensor, target: float) -> float:
    """Return the lowest confidence threshold at which the accuracy is at least `target`.

    Args:
        confidence: float (N,), probability of the predicted class.
        correct: bool (N,).
        target: Accuracy of the samples with at least this confidence, in (0, 1).

    Raises:
        UserError: no threshold reaches the target.
    """
    ordered, order = confidence.sort(descending=True)
    accuracy = correct[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_of_ties = torch.cat([ordered[1:] < ordered[:-1], torch.tensor([True])])
    reached = torch.nonzero((accuracy >= target) & last_of_ties)
    if not len(reached):
        raise UserError(f"no confidence threshold reaches an accuracy of {target:.2%} on val: lower --target_accuracy")
    last = int(reached[-1])
    # Halfway to the next lower confidence, so that rounding does not matter; below the lowest, by more than float32
    # rounding.
    following = ordered[last + 1] if last + 1 < len(ordered) else ordered[last] - ROUNDING
    return float(ordered[last] + following) / 2


def set_threshold(class_probability: Tensor, coverage: float, sample: str = "image") -> float:
    """Return the probability from which classes are in a prediction set that contains the true one with `coverage`.

    Split conformal prediction: Sadinle et al., Least Ambiguous Set-Valued Classifiers with Bounded Error Levels, 2019.

    Args:
        class_probability: Probability of the true class of each sample, float (N,).
        coverage: Probability that the set contains the true class, in (0, 1).
        sample: Singular noun for a sample.

    Raises:
        UserError: There are too few samples for this coverage.
    """
    count = len(class_probability)
    rank = math.ceil((count + 1) * coverage - 1e-9)
    if rank > count:
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise UserError(
            f"--coverage {coverage} needs at least {needed:,} {sample}s in the half of val that is kept for thresholds,"
            f" which has {count:,}: use more val {sample}s, --data.val_fraction, or a lower --coverage"
        )
    return max(0.0, float(class_probability.sort(descending=True).values[rank - 1]) - ROUNDING)


def describe_rejection(correct: Tensor, confident: Tensor, threshold: float, sample: str = "image") -> str:
    """Return how many samples reach the confidence threshold, and the accuracy on these.

    Args:
        correct: bool (N,).
        confident: bool (N,), which samples reach the threshold.
        threshold: The threshold.
        sample: Singular noun for a sample.
    """
    count, hits = int(confident.sum()), int(correct[confident].sum())
    if not count:
        return f"no {sample} reaches the confidence threshold {threshold:.4f}"
    accuracy = f"accuracy {_share(hits, count)} on these"
    return f"{count / len(correct):.2%} of the {sample}s reach the confidence threshold {threshold:.4f}; {accuracy}"


def describe_sets(
    target: ClassTarget,
    scores: NDArray[np.float32],
    label: NDArray[np.int64],
    coverage: float,
    sample: str = "image",
) -> str:
    """Return how many prediction sets contain the true class, and their average size.

    Args:
        target: The classes and their threshold.
        scores: Class probabilities, float32 (N, classes).
        label: int64 (N,).
        coverage: The stated coverage.
        sample: Singular noun for a sample.
    """
    sets = [target.prediction_set(each) for each in scores]
    covered = [target.class_names[true] in names for true, names in zip(label.tolist(), sets, strict=True)]
    text = f"{_share(sum(covered), len(sets))} of the prediction sets contain the true class (stated: {coverage:.2%});"
    text += f" average size {np.mean([len(names) for names in sets]):.2f}"
    below = wilson_interval(sum(covered), len(sets))[1] < coverage
    return f"{text}. This is below the stated coverage: these {sample}s differ from val" if below else text


def _share(hits: int, count: int) -> str:
    low, high = wilson_interval(hits, count)
    return f"{hits / count:.2%} (95 % confidence interval {low:.2%} to {high:.2%})"
