"""How groups of images fare, and whether chance explains the gaps between them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from project.runs.predictions import Predictions
from project.runs.statistics import BINS

SMALL = 30  # groups, and classes within a group, of fewer images are shown but not compared
DRAWS = 999  # of a bootstrap, and of a permutation test at least
FIGURES = ("accuracy", "mean recall", "calibration error", "recall", "selection rate")
# What does not hang on which classes a group holds; tested by exchanging images of one class only.
WITHIN_CLASS = ("mean recall", "recall")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grouping:
    """Which group each tested image belongs to: positions in `names`, int64 (N,); groups are by `title`."""

    title: str
    names: list[str]
    group: NDArray[np.int64]
    tested: Predictions

    def rates(self, figure: str, least: int = 1) -> Floats:
        """A figure of each group, (groups, 1) or (groups, classes); NaN where it rests on fewer than `least` images."""
        tested, groups, classes = self.tested, len(self.names), len(self.tested.names)
        right, ones = tested.correct.astype(float), np.ones(len(self.group))

        def sums(of: Floats, cell: Any = 0, cells: int = 1) -> Any:
            """Sums of what images have, (groups, cells), by the cell of each."""
            return np.bincount(self.group * cells + cell, of, groups * cells).reshape(groups, cells)

        sizes = sums(ones)
        if figure in WITHIN_CLASS:
            truths, enough = sums(ones, tested.label, classes), least if figure == "recall" else 1
            recall = np.where(truths < enough, np.nan, sums(right, tested.label, classes) / np.maximum(truths, 1))
            if figure == "recall":
                return recall
            found = np.nansum(recall, 1, keepdims=True) / np.maximum((truths > 0).sum(1, keepdims=True), 1)
        elif figure == "accuracy":
            found = sums(right) / np.maximum(sizes, 1)
        elif figure == "calibration error":
            place = np.minimum((tested.probability * BINS).astype(int), BINS - 1)
            off = np.abs(sums(tested.probability - right, place, BINS))
            found = off.sum(1, keepdims=True) / np.maximum(sizes, 1)
        else:  # the selection rate: the share of a group's images that is taken for a class
            found = sums(ones, tested.predicted, classes) / np.maximum(sizes, 1)
        return np.where(sizes < least, np.nan, found)


def find_gap(grouping: Grouping, figure: str, draws: int = DRAWS) -> dict[str, Any] | None:
    """The largest gap of a figure between two groups, as a row of gaps.csv; None where no two can be compared."""
    # The two groups are chosen for lying far apart, so the interval, by bootstrap within them, would make much of
    # noise: p is of a permutation test of `draws`, which makes the same choice among groups made by chance.
    label, group, within = grouping.tested.label, grouping.group, figure in WITHIN_CLASS
    pairs = np.unique(np.stack([label, group]), axis=1)
    rates = grouping.rates(figure, SMALL)
    if (~np.isnan(rates)).sum(0).max() < 2 or (within and len(np.unique(pairs[0])) == pairs.shape[1]):
        return None  # where no class occurs in two groups, a group's recall is that of its classes
    column = int(np.argmax(_spread(rates)))
    high, low = int(np.nanargmax(rates[:, column])), int(np.nanargmin(rates[:, column]))
    draw, resampled = np.random.default_rng(0), []
    members = [np.flatnonzero(group == which) for which in (high, low)]
    for _ in range(DRAWS):
        rows = np.concatenate([draw.choice(rows, len(rows)) for rows in members])
        drawn = replace(grouping, group=group[rows], tested=grouping.tested.subset(rows)).rates(figure)
        resampled.append(drawn[high, column] - drawn[low, column])
    bottom, top = np.nanpercentile(resampled, [2.5, 97.5]).tolist()
    observed, as_far = _spread(rates).max() - 1e-9, 0
    place = np.argsort(np.argsort(label, kind="stable"))  # of each image among those ordered by class
    for _ in range(draws):
        by_chance = group[np.lexsort((draw.random(len(label)), label))[place]] if within else draw.permutation(group)
        as_far += int(_spread(replace(grouping, group=by_chance).rates(figure, SMALL)).max() >= observed)
    names, class_name = grouping.names, grouping.tested.names[column] if rates.shape[1] > 1 else ""
    most, least = rates[[high, low], column].tolist()
    row = {"groups": grouping.title, "figure": figure, "class": class_name}
    row |= {"highest": names[high], "lowest": names[low], "high": most, "low": least, "gap": most - least}
    return row | {"gap low": bottom, "gap high": top, "p": (1 + as_far) / (1 + draws)}


def _spread(rates: Floats) -> Floats:
    """Largest less smallest of each column; -1 where a column has not two values."""
    known = ~np.isnan(rates)
    spread = np.where(known, rates, -np.inf).max(0) - np.where(known, rates, np.inf).min(0)
    return np.where(known.sum(0) > 1, spread, -1.0)
