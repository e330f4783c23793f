"""What follows from the predictions of a classification test: accuracy, confusion, calibration."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from project.runs.statistics import BINS, Interval, precision_recall_f1, wilson_interval


class Bin(NamedTuple):
    """Images whose prediction was about as certain: where the bin begins, how many, mean probability, share right."""

    low: float
    images: int
    confidence: float
    accuracy: float


class Pair(NamedTuple):
    """Images of one class that were taken for another; `share` is of the images of the true class."""

    label: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True)
class Predictions:
    """What a test predicted, an entry an image.

    Attributes:
        names: Class names; labels and predictions are positions in it.
        paths: Of the images.
        label: int64 (N,).
        predicted: int64 (N,).
        probability: Of the predicted class, float64 (N,) in [0, 1].
        class_probability: Of the true class, alike.
    """

    names: list[str]
    paths: list[str]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64]
    class_probability: NDArray[np.float64]

    def subset(self, rows: NDArray[np.int64]) -> "Predictions":
        """Those of some images, by their positions."""
        paths = [self.paths[row] for row in rows] if self.paths else []
        certainties = self.probability[rows], self.class_probability[rows]
        return Predictions(self.names, paths, self.label[rows], self.predicted[rows], *certainties)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Which images were classified right."""
        return np.equal(self.label, self.predicted)

    @property
    def accuracy(self) -> float:
        """Share of the images that is right."""
        return float(self.correct.mean())

    @property
    def interval(self) -> Interval:
        """95 % interval of the accuracy."""
        return wilson_interval(int(self.correct.sum()), len(self.correct))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes); rows are labels, columns are predictions."""
        classes = len(self.names)
        cells = self.label * classes + self.predicted
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Classes that were taken for one another, most images first."""
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
        """images, precision, recall and f1, each (classes,), by name, as the classifier counts them.

        NaN where a class occurs neither among labels nor among predictions; the means leave such classes out.
        """
        hits, truths, guesses = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        seen = truths + guesses > 0
        rates = {name: np.where(seen, of, np.nan) for name, of in precision_recall_f1(hits, truths, guesses).items()}
        return {"images": truths.astype(float), **rates}

    @cached_property
    def bins(self) -> list[Bin]:
        """The images by the probability of their prediction, in `BINS` bins of equal width; those with images."""
        place = np.minimum((self.probability * BINS).astype(int), BINS - 1)
        found = [(i, place == i) for i in np.unique(place).tolist()]
        return [
            Bin(i / BINS, int(rows.sum()), float(self.probability[rows].mean()), float(self.correct[rows].mean()))
            for i, rows in found
        ]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: how far confidence and accuracy of a bin lie apart, mean over the images."""
        return sum(b.images * abs(b.confidence - b.accuracy) for b in self.bins) / len(self.correct)
