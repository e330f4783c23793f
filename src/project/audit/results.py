"""Test results of classes, labels and values, and their metrics by subgroup."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from project.runs.predictions import Predictions
from project.runs.statistics import BINS, Interval, precision_recall_f1, wilson_interval

Floats = NDArray[np.float64]
RESAMPLES = 999  # of the bootstrap; minimum for the permutation test


class Results(ABC):
    """Targets and predictions of the tested samples.

    Attributes:
        metrics: Names of the metrics, the most important first. Those in `within` do not depend on how classes or label
            sets are distributed.
        shown: The columns of groups.csv to show; the first one has an interval and tells the worst group.
        lower_is_better: Whether a lower value of the first metric is better.
        columns: Names of the columns of the metrics that have one for each class, label or value.
        paths: Paths of the samples, or the texts themselves.
    """

    metrics: ClassVar[tuple[str, ...]]
    within: ClassVar[tuple[str, ...]] = ()
    shown: Sequence[str]
    lower_is_better: ClassVar[bool] = False
    columns: Sequence[str]
    paths: Sequence[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def subset(self, rows: NDArray[np.int64]) -> Self:
        """Return the results of the given rows."""

    @abstractmethod
    def rates(self, metric: str, group: NDArray[np.int64], groups: int, min_images: int = 1) -> Floats:
        """Return a metric by group, (groups, 1) or (groups, columns); NaN if computed from fewer than `min_images`.

        Args:
            metric: One of `metrics`.
            group: Number of the group of each image, int64 (N,).
            groups: Number of groups.
            min_images: Minimum number of images of a group, for recall of a class or label in it.
        """

    @property
    def strata(self) -> NDArray[np.int64]:
        """Class or label set of each image, int64 (N,), in which groups are permuted for the metrics in `within`."""
        return np.zeros(len(self), np.int64)

    @property
    def scale(self) -> Any:
        """Unit of each column, by which gaps are divided to compare columns."""
        return 1.0

    def form(self, metric: str) -> str:
        """Return the format of a metric."""
        return ".1%"

    def interval(self) -> Interval:
        """95 % confidence interval of the first metric that is shown, by a percentile bootstrap."""
        rng, one = np.random.default_rng(0), np.zeros(len(self), np.int64)
        draws = (self.subset(rng.integers(len(self), size=len(self))) for _ in range(RESAMPLES))
        low, high = np.nanpercentile([each.rates(self.metrics[0], one, 1)[0, 0] for each in draws], [2.5, 97.5])
        return float(low), float(high)


@dataclass(frozen=True)
class ClassResults(Results):
    """Results of mutually exclusive classes."""

    metrics = ("accuracy", "mean recall", "calibration error", "recall", "selection rate")
    within = ("mean recall", "recall")
    shown = ("accuracy", "mean recall", "calibration error")
    tested: Predictions

    @property
    def columns(self) -> Sequence[str]:  # type: ignore[override]
        """Class names."""
        return self.tested.names

    @property
    def paths(self) -> Sequence[str]:  # type: ignore[override]
        """Image paths."""
        return self.tested.paths

    @override
    def __len__(self) -> int:
        return len(self.tested.label)

    @override
    def subset(self, rows: NDArray[np.int64]) -> "ClassResults":
        return ClassResults(self.tested.subset(rows))

    @property
    @override
    def strata(self) -> NDArray[np.int64]:
        return self.tested.label

    @override
    def form(self, metric: str) -> str:
        return ".3f" if metric == "calibration error" else ".1%"

    @override
    def interval(self) -> Interval:
        return wilson_interval(int(self.tested.correct.sum()), len(self))

    @override
    def rates(self, metric: str, group: NDArray[np.int64], groups: int, min_images: int = 1) -> Floats:
        tested, classes = self.tested, len(self.tested.names)
        correct, ones = tested.correct.astype(float), np.ones(len(group))

        def sums(weights: Floats, cell: Any = 0, cells: int = 1) -> Any:
            """Return the sum of weights by group and cell, (groups, cells)."""
            return np.bincount(group * cells + cell, weights, groups * cells).reshape(groups, cells)

        sizes = sums(ones)
        if metric in self.within:
            labels, min_labels = sums(ones, tested.label, classes), min_images if metric == "recall" else 1
            recall = np.where(labels < min_labels, np.nan, sums(correct, tested.label, classes) / np.maximum(labels, 1))
            if metric == "recall":
                return recall
            rates = np.nansum(recall, 1, keepdims=True) / np.maximum((labels > 0).sum(1, keepdims=True), 1)
        elif metric == "accuracy":
            rates = sums(correct) / np.maximum(sizes, 1)
        elif metric == "calibration error":
            bins = np.minimum((tested.probability * BINS).astype(int), BINS - 1)
            error = np.abs(sums(tested.probability - correct, bins, BINS))
            rates = error.sum(1, keepdims=True) / np.maximum(sizes, 1)
        else:  # selection rate: the fraction of a group's images predicted as a class
            rates = sums(ones, tested.predicted, classes) / np.maximum(sizes, 1)
        return np.where(sizes < min_images, np.nan, rates)


@dataclass(frozen=True)
class LabelResults(Results):
    """Results of labels: `truth` float (N, labels), NaN if unknown, `predicted` bool (N, labels)."""

    metrics = ("F1", "subset accuracy", "mean recall", "recall", "selection rate")
    within = ("mean recall", "recall")
    shown = ("F1", "subset accuracy", "mean recall")
    columns: Sequence[str]
    paths: Sequence[str]
    truth: Floats
    predicted: NDArray[np.bool_]

    @override
    def __len__(self) -> int:
        return len(self.truth)

    @override
    def subset(self, rows: NDArray[np.int64]) -> "LabelResults":
        paths = [self.paths[row] for row in rows]
        return LabelResults(self.columns, paths, self.truth[rows], self.predicted[rows])

    @property
    def per_label(self) -> dict[str, Floats]:
        """Number of images that have it, precision, recall and F1 by label, each (labels,), of known labels."""
        present, predicted = self.truth == 1, self.predicted & ~np.isnan(self.truth)
        counts = (present & predicted).sum(0), present.sum(0), predicted.sum(0)
        return {"images": counts[1].astype(float), **precision_recall_f1(*counts)}

    @cached_property
    @override
    def strata(self) -> NDArray[np.int64]:
        return np.unique(np.nan_to_num(self.truth, nan=-1), axis=0, return_inverse=True)[1].reshape(-1)

    @override
    def rates(self, metric: str, group: NDArray[np.int64], groups: int, min_images: int = 1) -> Floats:
        members = _members(group, groups)
        sizes = members.sum(1, keepdims=True)
        present, predicted = self.truth == 1, self.predicted & ~np.isnan(self.truth)
        if metric == "subset accuracy":
            rates = members @ (present == predicted).all(1, keepdims=True) / np.maximum(sizes, 1)
        elif metric == "selection rate":
            rates = members @ self.predicted / np.maximum(sizes, 1)
        elif metric == "F1":
            total = members @ present + members @ predicted
            rates = _mean(np.where(total > 0, 2 * (members @ (present & predicted)) / np.maximum(total, 1), np.nan))
        else:
            labels, min_labels = members @ present, min_images if metric == "recall" else 1
            recall = members @ (present & predicted) / np.maximum(labels, 1)
            recall = np.where(labels < min_labels, np.nan, recall)
            if metric == "recall":
                return recall
            rates = _mean(recall)
        return np.where(sizes < min_images, np.nan, rates)


@dataclass(frozen=True)
class ValueResults(Results):
    """Results of values in the units of the data: `truth`, NaN if unknown, and `predicted`, float (N, values)."""

    metrics = ("MAE", "RMSE", "bias")
    lower_is_better = True
    columns: Sequence[str]
    paths: Sequence[str]
    truth: Floats
    predicted: Floats

    @property
    def shown(self) -> Sequence[str]:  # type: ignore[override]
        """All metrics of one value, or the error of each of several."""
        return self.metrics if len(self.columns) == 1 else [f"MAE {column}" for column in self.columns[:5]]

    @override
    def __len__(self) -> int:
        return len(self.truth)

    @override
    def subset(self, rows: NDArray[np.int64]) -> "ValueResults":
        return ValueResults(self.columns, [self.paths[row] for row in rows], self.truth[rows], self.predicted[rows])

    @cached_property
    @override
    def scale(self) -> Floats:
        spread = np.nanstd(self.truth, 0)
        return np.where(spread > 0, spread, 1.0)

    @override
    def form(self, metric: str) -> str:
        return ".4g"

    @override
    def rates(self, metric: str, group: NDArray[np.int64], groups: int, min_images: int = 1) -> Floats:
        members, known = _members(group, groups), ~np.isnan(self.truth)
        error = np.where(known, self.predicted - self.truth, 0)
        error = {"MAE": np.abs(error), "RMSE": error**2, "bias": error}[metric]
        sizes = members @ known
        rates = members @ error / np.maximum(sizes, 1)
        return np.where(sizes < max(1, min_images), np.nan, np.sqrt(rates) if metric == "RMSE" else rates)


def _members(group: NDArray[np.int64], groups: int) -> Floats:
    """Return 1 for the images of each group and 0 for others, (groups, N)."""
    return cast(Floats, (group == np.arange(groups)[:, None]).astype(np.float64))


def _mean(values: Floats) -> Floats:
    """Return the mean of each row without NaN, (rows, 1), NaN without any."""
    known = ~np.isnan(values)
    count = known.sum(1, keepdims=True)
    mean = np.where(known, values, 0).sum(1, keepdims=True) / np.maximum(count, 1)
    return cast(Floats, np.where(count > 0, mean, np.nan))
