"""Metrics of the predictions of a classification test: accuracy, confusion matrix, calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from project.runs.statistics import BINS, Interval, precision_recall_f1, wilson_interval


class Bin(NamedTuple):
    """Calibration bin: lower edge, number of images, mean confidence, accuracy."""

    low: float
    images: int
    confidence: float
    accuracy: float


class Pair(NamedTuple):
    """Two confused classes: number of images, also as a share of the images of the true class."""

    label: str
    predicted: str
    images: int
    share: float


def calibration_bins(probability: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[Bin]:
    """Return the non-empty calibration bins, of `BINS` of equal width, of probabilities (N,) and outcomes (N,)."""
    index = np.minimum((probability * BINS).astype(int), BINS - 1)
    masks = [(i, index == i) for i in np.unique(index).tolist()]
    return [
        Bin(i / BINS, int(rows.sum()), float(probability[rows].mean()), float(correct[rows].mean()))
        for i, rows in masks
    ]


@dataclass(frozen=True)
class Predictions:
    """Predictions of a test, one entry per image.

    Attributes:
        names: Class names, indexed by labels and predictions.
        paths: Image paths.
        label: int64 (N,).
        predicted: int64 (N,).
        probability: Probability of the predicted class, float64 (N,) in [0, 1].
        class_probability: Probability of the true class, float64 (N,) in [0, 1].
        probabilities: Probability of each class, float64 (N, classes) in [0, 1]; None with more than 100 classes.
    """

    names: list[str]
    paths: list[str]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64]
    class_probability: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None = None

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[str]], names: list[str]) -> "Predictions":
        """Return the predictions of the rows of test_predictions.csv; without names, those in the rows."""
        names = names or sorted({cell for row in rows for cell in row[1:3]})
        index = {name: i for i, name in enumerate(names)}
        label, predicted = (np.array([index[row[column]] for row in rows]) for column in (1, 2))
        numbers = np.array([row[3:] for row in rows]).astype(np.float64)
        each = numbers[:, 2:] if numbers.shape[1] == 2 + len(names) else None
        return cls(names, [row[0] for row in rows], label, predicted, numbers[:, 0], numbers[:, 1], each)

    def subset(self, rows: NDArray[np.int64]) -> "Predictions":
        """Return the predictions of the given rows, without the probability of each class."""
        paths = [self.paths[row] for row in rows] if self.paths else []
        probabilities = self.probability[rows], self.class_probability[rows]
        return Predictions(self.names, paths, self.label[rows], self.predicted[rows], *probabilities)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Mask of the correct predictions, bool (N,)."""
        return np.equal(self.label, self.predicted)

    @property
    def accuracy(self) -> float:
        """Accuracy in [0, 1]."""
        return float(self.correct.mean())

    @property
    def interval(self) -> Interval:
        """95 % confidence interval of the accuracy."""
        return wilson_interval(int(self.correct.sum()), len(self.correct))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Confusion matrix, int64 (classes, classes): rows are labels, columns are predictions."""
        classes = len(self.names)
        cells = self.label * classes + self.predicted
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Confused pairs of classes, most frequent first."""
        mistakes = self.confusion * (1 - np.eye(len(self.names), dtype=np.int64))
        rows, columns = np.nonzero(mistakes)
        counts, totals = mistakes[rows, columns], self.confusion.sum(1)[rows]
        order = np.lexsort((-counts / totals, -counts))
        return [
            Pair(self.names[rows[i]], self.names[columns[i]], int(counts[i]), float(counts[i] / totals[i]))
            for i in order
        ]

    @cached_property
    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """Number of images, precision, recall and F1 by class, each (classes,).

        NaN for classes without labels and predictions; macro averages ignore them.
        """
        correct, labels, predicted = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        seen = labels + predicted > 0
        scores = precision_recall_f1(correct, labels, predicted)
        return {"images": labels.astype(float), **{name: np.where(seen, s, np.nan) for name, s in scores.items()}}

    @cached_property
    def bins(self) -> list[Bin]:
        """The non-empty calibration bins."""
        return calibration_bins(self.probability, self.correct)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean absolute difference of confidence and accuracy, weighted by bin size."""
        return sum(b.images * abs(b.confidence - b.accuracy) for b in self.bins) / len(self.correct)
