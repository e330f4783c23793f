"""What follows from the predictions of a test: rates with their uncertainty, confusion, calibration, comparison."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from project.callbacks.calibration import BINS

Z = 1.959964
"""Standard deviations that hold 95 % of a normal distribution."""

Interval = tuple[float, float]


class Bin(NamedTuple):
    """Images whose prediction was about as certain.

    Attributes:
        low: Where the bin begins.
        images: How many.
        confidence: Their mean probability of the predicted class.
        accuracy: Share of them that is right.
    """

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

    def some(self, rows: NDArray[np.int64]) -> "Predictions":
        """Those of some images, by their positions."""
        paths = [self.paths[row] for row in rows] if self.paths else []
        certainties = self.probability[rows], self.class_probability[rows]
        return Predictions(self.names, paths, self.label[rows], self.predicted[rows], *certainties)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Which images were classified right."""
        return np.equal(self.label, self.predicted)

    @property
    def accuracy(self) -> float:
        """Share of the images that is right."""
        return float(self.right.mean())

    @property
    def interval(self) -> Interval:
        """95 % interval of the accuracy."""
        return wilson(int(self.right.sum()), len(self.right))

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
        parts = {"precision": guesses, "recall": truths, "f1": (truths + guesses) / 2}
        seen = truths + guesses > 0
        rates = {name: np.where(seen, hits / np.maximum(part, 0.5), np.nan) for name, part in parts.items()}
        return {"images": truths.astype(float), **rates}

    @cached_property
    def bins(self) -> list[Bin]:
        """The images by the probability of their prediction, in `BINS` bins of equal width; those with images."""
        place = np.minimum((self.probability * BINS).astype(int), BINS - 1)
        found = [(i, place == i) for i in np.unique(place).tolist()]
        return [
            Bin(i / BINS, int(rows.sum()), float(self.probability[rows].mean()), float(self.right[rows].mean()))
            for i, rows in found
        ]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: how far confidence and accuracy of a bin lie apart, mean over the images.

        Guo et al., On Calibration of Modern Neural Networks, 2017.
        """
        return sum(b.images * abs(b.confidence - b.accuracy) for b in self.bins) / len(self.right)


class Comparison(NamedTuple):
    """How one run does against another.

    Attributes:
        images: On how many images both were tested; 0 where their test sets have none in common.
        same: Whether those are all images of both.
        accuracies: Of either, on those images, else each on its own.
        difference: The second accuracy less the first.
        interval: 95 % interval of the difference.
        gained: Images that only the second has right.
        lost: Images that only the first has right.
        p: How often chance alone gives so uneven a pair of these, or more so; None without images in common.
    """

    images: int
    same: bool
    accuracies: tuple[float, float]
    difference: float
    interval: Interval
    gained: int
    lost: int
    p: float | None


def wilson(hits: int, total: int) -> Interval:
    """95 % interval of a rate.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    centre, spread = hits + Z**2 / 2, Z * math.sqrt(hits * (total - hits) / total + Z**2 / 4)
    return max(0.0, (centre - spread) / (total + Z**2)), min(1.0, (centre + spread) / (total + Z**2))


def compare(one: Predictions, other: Predictions, same_folder: bool = True) -> Comparison:
    """Compare two runs on the images that both were tested on, or else each on its own.

    Images are the same if their paths and true classes are; in two folders, if those of all images are.

    On the same images McNemar's exact test (McNemar, Note on the Sampling Error of the Difference Between Correlated
    Proportions, 1947) and the interval of Agresti and Min (Simple Improved Confidence Intervals for Comparing Matched
    Proportions, 2005); on different ones Newcombe's interval (Interval Estimation for the Difference Between
    Independent Proportions, 1998, method 10).
    """
    rights = [
        {(path, p.names[label]): right for path, label, right in zip(p.paths, p.label, p.right.tolist(), strict=True)}
        for p in (one, other)
    ]
    same = rights[0].keys() == rights[1].keys()
    common = rights[0].keys() & rights[1].keys() if same or same_folder else set()
    if not common:
        difference = other.accuracy - one.accuracy
        (a_low, a_high), (b_low, b_high) = one.interval, other.interval
        low = difference - math.hypot(other.accuracy - b_low, a_high - one.accuracy)
        high = difference + math.hypot(b_high - other.accuracy, one.accuracy - a_low)
        return Comparison(0, False, (one.accuracy, other.accuracy), difference, (low, high), 0, 0, None)
    from scipy.stats import binomtest

    pairs = np.array([(rights[0][image], rights[1][image]) for image in common])
    gained, lost = int((~pairs[:, 0] & pairs[:, 1]).sum()), int((pairs[:, 0] & ~pairs[:, 1]).sum())
    images = len(pairs)
    centre = (gained - lost) / (images + 2)
    spread = Z * math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / (images + 2)) / (images + 2)
    p = binomtest(lost, gained + lost).pvalue if gained + lost else 1.0
    first, second = pairs.mean(0).tolist()
    interval = centre - spread, centre + spread
    return Comparison(images, same, (first, second), (gained - lost) / images, interval, gained, lost, float(p))


def holm(values: list[float]) -> list[float]:
    """p-values corrected for being several (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    corrected, highest = [0.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - place) * values[i]))
        corrected[i] = highest
    return corrected
