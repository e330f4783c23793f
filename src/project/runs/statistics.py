"""Rates and how far chance reaches."""

from typing import Any

BINS = 15  # of the calibration error, as in Guo et al., On Calibration of Modern Neural Networks, 2017
Interval = tuple[float, float]


def precision_recall_f1(hits: Any, truths: Any, guesses: Any) -> dict[str, Any]:
    """Return precision, recall and F1, (classes,), 0 where a class does not occur.

    Of right predictions, labels and predictions by class, int64 (classes,), of NumPy or torch.
    """
    both = truths + guesses
    return {
        "precision": hits / (guesses + (guesses == 0)),
        "recall": hits / (truths + (truths == 0)),
        "f1": 2 * hits / (both + (both == 0)),
    }


def wilson_interval(hits: int, total: int) -> Interval:
    """Return the 95 % interval of a rate.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    from scipy.stats import binomtest

    low, high = binomtest(hits, total).proportion_ci(method="wilson")
    return float(low), float(high)


def holm_correction(values: list[float]) -> list[float]:
    """Return p-values corrected for being several (Holm, A Simple Sequentially Rejective Test Procedure, 1979)."""
    corrected, highest = [0.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - place) * values[i]))
        corrected[i] = highest
    return corrected
