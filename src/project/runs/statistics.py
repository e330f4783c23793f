"""Scores of classes, labels and values, confidence intervals and multiple-testing correction."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def ranking(scores: NDArray[Any], truth: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return the AUROC and the average precision of each column, (columns,), as scikit-learn defines them.

    Args:
        scores: float (N, columns).
        truth: 0 or 1, NaN if unknown, float (N, columns).

    Returns:
        `auroc` and `average_precision`; NaN for columns that do not have both values.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = np.full((2, scores.shape[1]), np.nan)
    for column, (score, label) in enumerate(zip(scores.T, truth.T, strict=True)):
        known = ~np.isnan(label)
        if len(np.unique(label[known])) == 2:
            for row, metric in enumerate((roc_auc_score, average_precision_score)):
                found[row, column] = metric(label[known], score[known])
    return dict(zip(("auroc", "average_precision"), found, strict=True))


def value_metrics(predictions: NDArray[Any], truth: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return `mae`, `rmse`, `r2`, `spearman`, float64, and the number of `known` samples, int64, each (values,).

    Args:
        predictions: float (N, values).
        truth: float (N, values), NaN if unknown.

    Returns:
        The metrics; R2 and Spearman's rank correlation are NaN for values that do not vary.
    """
    from scipy.stats import spearmanr

    found = np.full((4, truth.shape[1]), np.nan)
    counts = (~np.isnan(truth)).sum(0)
    for column in np.flatnonzero(counts):
        known = ~np.isnan(truth[:, column])
        x, y = predictions[known, column].astype(np.float64), truth[known, column].astype(np.float64)
        error, spread = x - y, np.square(y - y.mean()).sum()
        found[:2, column] = np.abs(error).mean(), np.sqrt(np.square(error).mean())
        if spread > 0:
            found[2, column] = 1 - np.square(error).sum() / spread
            if len(np.unique(x)) > 1:
                found[3, column] = spearmanr(x, y).statistic
    return dict(zip(("mae", "rmse", "r2", "spearman"), found, strict=True)) | {"known": counts}


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
