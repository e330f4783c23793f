"""Significance tests of the gaps between subgroups."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from project.audit.results import RESAMPLES, Floats, Results

MIN_IMAGES = 30  # smaller groups, and smaller classes within a group, are reported but not compared


@dataclass(frozen=True)
class Grouping:
    """A partition of the tested samples into subgroups.

    Attributes:
        title: The attribute that defines the groups.
        names: Group names.
        group: Index in `names` of the group of each sample, int64 (N,).
        tested: Results of the samples.
    """

    title: str
    names: list[str]
    group: NDArray[np.int64]
    tested: Results

    def rates(self, metric: str, min_images: int = 1) -> Floats:
        """Return a metric by group as `Results.rates`."""
        return self.tested.rates(metric, self.group, len(self.names), min_images)


def largest_gap(grouping: Grouping, metric: str, permutations: int = RESAMPLES) -> dict[str, Any] | None:
    """Return the largest gap of a metric between two groups, as a row of gaps.csv, or None if none are comparable.

    The interval is a bootstrap within the two groups, the p-value a permutation test.
    """
    # The two groups are selected for their gap, which biases the bootstrap interval; the permutation test repeats the
    # selection in each permutation, so its p-value is valid.
    label, group, within = grouping.tested.strata, grouping.group, metric in grouping.tested.within
    pairs = np.unique(np.stack([label, group]), axis=1)
    rates = grouping.rates(metric, MIN_IMAGES)
    if (~np.isnan(rates)).sum(0).max() < 2 or (within and len(np.unique(pairs[0])) == pairs.shape[1]):
        return None  # if no class occurs in two groups, recall by group is confounded with recall by class
    scale = grouping.tested.scale
    column = int(np.argmax(_ranges(rates) / scale))
    high, low = int(np.nanargmax(rates[:, column])), int(np.nanargmin(rates[:, column]))
    rng, resampled = np.random.default_rng(0), []
    members = [np.flatnonzero(group == which) for which in (high, low)]
    for _ in range(RESAMPLES):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in members])
        sample = replace(grouping, group=group[rows], tested=grouping.tested.subset(rows)).rates(metric)
        resampled.append(sample[high, column] - sample[low, column])
    bottom, top = np.nanpercentile(resampled, [2.5, 97.5]).tolist()
    observed, exceeding = (_ranges(rates) / scale).max() - 1e-9, 0
    rank = np.argsort(np.argsort(label, kind="stable"))  # of each sample in the order by class
    for _ in range(permutations):
        permuted = group[np.lexsort((rng.random(len(label)), label))[rank]] if within else rng.permutation(group)
        ranges = _ranges(replace(grouping, group=permuted).rates(metric, MIN_IMAGES))
        exceeding += int((ranges / scale).max() >= observed)
    names, class_name = grouping.names, grouping.tested.columns[column] if rates.shape[1] > 1 else ""
    highest, lowest = rates[[high, low], column].tolist()
    row = {"groups": grouping.title, "figure": metric, "class": class_name}
    row |= {"highest": names[high], "lowest": names[low], "high": highest, "low": lowest, "gap": highest - lowest}
    return row | {"gap low": bottom, "gap high": top, "p": (1 + exceeding) / (1 + permutations)}


def _ranges(rates: Floats) -> Floats:
    """Return the maximum minus the minimum of each column; -1 with fewer than two values."""
    known = ~np.isnan(rates)
    ranges = np.where(known, rates, -np.inf).max(0) - np.where(known, rates, np.inf).min(0)
    return np.where(known.sum(0) > 1, ranges, -1.0)
