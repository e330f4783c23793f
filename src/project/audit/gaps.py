"""How groups of images fare, and whether chance explains the gaps between them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from project.callbacks.calibration import BINS
from project.report.figures import Interval, Predictions

SMALL = 30
"""Groups, and classes within a group, of fewer images are shown but not compared."""
DRAWS = 999
"""Of a bootstrap, and of a permutation test at least."""
FIGURES = ("accuracy", "mean recall", "calibration error", "recall", "selection rate")
WITHIN_CLASS = ("mean recall", "recall")
"""What does not hang on which classes a group holds; tested by exchanging images of one class only."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grouping:
    """Which group each tested image belongs to.

    Attributes:
        title: What the groups are by, such as skin_type.
        names: Of the groups.
        group: int64 (N,), positions in `names`.
        tested: The images.
    """

    title: str
    names: list[str]
    group: NDArray[np.int64]
    tested: Predictions

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Images of each group."""
        return np.bincount(self.group, minlength=len(self.names))

    def rates(self, figure: str, least: int = 1) -> Floats:
        """A figure of each group: (groups, 1), or (groups, classes) for recall and selection rate.

        NaN where it would rest on fewer than `least` images. The selection rate is the share of a group's images that
        is taken for a class.
        """
        tested, classes, count = self.tested, len(self.tested.names), len(self.names)

        def share(of: Floats, among: NDArray[np.int64], cells: int) -> tuple[Floats, Floats]:
            cell = self.group * cells + among
            sums, sizes = np.bincount(cell, of, count * cells), np.bincount(cell, minlength=count * cells)
            return sums.reshape(count, cells).astype(float), sizes.reshape(count, cells).astype(float)

        nothing, right = np.zeros_like(self.group), tested.right.astype(float)
        hits, sizes = share(right, nothing, 1)
        few = sizes < least
        if figure == "accuracy":
            return _ratio(hits, sizes, least)
        if figure == "calibration error":
            place = np.minimum((tested.probability * BINS).astype(int), BINS - 1)
            off, _ = share(tested.probability - right, place, BINS)
            return np.where(few, np.nan, np.abs(off).sum(1, keepdims=True) / np.maximum(sizes, 1))
        if figure == "selection rate":
            _, selected = share(right, tested.predicted, classes)
            return np.where(few, np.nan, selected / np.maximum(sizes, 1))
        recall = _ratio(*share(right, tested.label, classes), 1 if figure == "mean recall" else least)
        if figure == "recall":
            return recall
        mean = np.nansum(recall, 1, keepdims=True) / np.maximum((~np.isnan(recall)).sum(1, keepdims=True), 1)
        return np.where(few, np.nan, mean)


class Gap(NamedTuple):
    """The largest difference of a figure between two groups.

    Attributes:
        title: What the groups are by.
        figure: One of `FIGURES`.
        class_name: The class whose recall or selection rate it is; empty for other figures.
        high: The group where the figure is largest.
        low: The group where it is smallest.
        values: The figure in either.
        interval: 95 % interval of the difference between these two, by bootstrap within the groups.
        p: How often groups made by chance lie so far apart, or farther.
    """

    title: str
    figure: str
    class_name: str
    high: str
    low: str
    values: tuple[float, float]
    interval: Interval
    p: float

    @property
    def size(self) -> float:
        """The difference."""
        return self.values[0] - self.values[1]


def find_gap(grouping: Grouping, figure: str, draws: int = DRAWS) -> Gap | None:
    """The largest gap of a figure; None where no two groups hold enough images, or for recall any class in common.

    The two groups are chosen for lying far apart, so the interval alone would make much of noise: the permutation test
    makes the same choice among groups made by chance.

    Args:
        grouping: The groups.
        figure: One of `FIGURES`.
        draws: Of the permutation test, which can give no p below one over them.
    """
    if figure in WITHIN_CLASS and not _classes_shared(grouping):
        return None
    rates = grouping.rates(figure, SMALL)
    if (~np.isnan(rates)).sum(0).max() < 2:
        return None
    column = int(np.argmax(_spread(rates)))
    high, low = int(np.nanargmax(rates[:, column])), int(np.nanargmin(rates[:, column]))
    draw = np.random.default_rng(0)
    resampled = []
    members = [np.flatnonzero(grouping.group == group) for group in (high, low)]
    for _ in range(DRAWS):
        rows = np.concatenate([draw.choice(rows, len(rows)) for rows in members])
        drawn = replace(grouping, group=grouping.group[rows], tested=grouping.tested.some(rows)).rates(figure)
        resampled.append(drawn[high, column] - drawn[low, column])
    exchange = _within_class(grouping, draw) if figure in WITHIN_CLASS else lambda: draw.permutation(grouping.group)
    observed = _spread(rates).max() - 1e-9
    as_far = sum(
        _spread(replace(grouping, group=exchange()).rates(figure, SMALL)).max() >= observed for _ in range(draws)
    )
    name = grouping.tested.names[column] if rates.shape[1] > 1 else ""
    values = float(rates[high, column]), float(rates[low, column])
    bottom, top = np.nanpercentile(resampled, [2.5, 97.5]).tolist()
    names = grouping.names[high], grouping.names[low]
    return Gap(grouping.title, figure, name, *names, values, (bottom, top), (1 + int(as_far)) / (1 + draws))


def _classes_shared(grouping: Grouping) -> bool:
    """Whether some class occurs in two groups; else a group's recall is that of its classes."""
    pairs = np.unique(np.stack([grouping.tested.label, grouping.group]), axis=1)
    return bool(len(np.unique(pairs[0])) < pairs.shape[1])


def _within_class(grouping: Grouping, draw: np.random.Generator) -> Callable[[], NDArray[np.int64]]:
    label = grouping.tested.label
    ordered = np.argsort(label, kind="stable")

    def exchange() -> NDArray[np.int64]:
        group = np.empty_like(grouping.group)
        group[ordered] = grouping.group[np.lexsort((draw.random(len(label)), label))]
        return group

    return exchange


def _ratio(part: Floats, whole: Floats, least: int) -> Floats:
    return np.where(whole < max(least, 1), np.nan, part / np.maximum(whole, 1))


def _spread(rates: Floats) -> Floats:
    """Largest less smallest of each column; -1 where a column has not two values."""
    known = ~np.isnan(rates)
    spread = np.where(known, rates, -np.inf).max(0) - np.where(known, rates, np.inf).min(0)
    return np.where(known.sum(0) > 1, spread, -1.0)
