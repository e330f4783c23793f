"""Classification scores, confidence intervals and multiple-testing correction."""

from typing import Any

BINS = 15  # of the calibration error, as in Guo et al., On Calibration of Modern Neural Networks, 2017
Interval = tuple[float, float]


def precision_recall_f1(correct: Any, labels: Any, predicted: Any) -> dict[str, Any]:
    """Return precision, recall and F1 by class, (classes,), 0 for classes that do not occur.

    Args:
        correct: Number of correct predictions, int64 (classes,), an array or tensor.
        labels: Number of samples with this label, int64 (classes,).
        predicted: Number of samples with this prediction, int64 (classes,).
    """
    total = labels + predicted
    return {
        "precision": correct / (predicted + (predicted == 0)),
        "recall": correct / (labels + (labels == 0)),
        "f1": 2 * correct / (total + (total == 0)),
    }


def wilson_interval(successes: int, total: int) -> Interval:
    """Return the 95 % Wilson score interval of a proportion.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    from scipy.stats import binomtest

    low, high = binomtest(successes, total).proportion_ci(method="wilson")
    return float(low), float(high)


def holm_correction(values: list[float]) -> list[float]:
    """Return p-values with the correction of Holm, A Simple Sequentially Rejective Test Procedure, 1979."""
    corrected, highest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = highest
    return corrected
