"""Stratified assignment of samples that have several labels or values."""

import numpy as np
from numpy.typing import NDArray

BINS = 10  # of equally many samples, into which values are divided


def indicators(labels: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    """Return what is to be distributed evenly: the labels, or the quantile bins of each value, 0 or 1.

    Args:
        labels: float (N, columns), NaN if unknown.
        kind: `multilabel` or `values`.

    Returns:
        float64 (N, indicators).
    """
    if kind == "multilabel":
        return np.asarray(labels == 1, np.float64)
    bins = []
    for column in labels.T:
        known = np.flatnonzero(~np.isnan(column))
        ranks = np.unique(column[known], return_inverse=True)[1]  # equal values are in one bin
        count = np.bincount(ranks).cumsum() - 1
        number = np.full(len(column), -1)
        number[known] = count[ranks] * BINS // max(1, len(known))
        bins.append(number[:, None] == np.arange(BINS))
    return np.asarray(np.concatenate(bins, 1), np.float64)


def assign_parts(
    matrix: NDArray[np.float64], sizes: NDArray[np.int64], shares: list[float], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Assign units (samples, or groups of samples) to parts of given shares by iterative stratification.

    Sechidis et al., On the Stratification of Multi-label Data, 2011: the rarest indicator is distributed first, each
    unit to the part that lacks most of it.

    Args:
        matrix: Number of samples of each unit with each indicator, float (units, indicators).
        sizes: Number of samples of each unit, int64 (units,).
        shares: Share of samples of each part; they sum to 1.
        order: Order in which units are taken, a permutation of the units, int64 (units,).

    Returns:
        The part of each unit, int64 (units,).
    """
    share = np.array(shares)
    lacking = share[:, None] * matrix.sum(0)  # samples with each indicator that each part still needs
    room = share * sizes.sum()
    parts = np.full(len(matrix), -1)
    remaining = (matrix > 0).sum(0)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))

    def take(unit: int, wanted: NDArray[np.float64]) -> None:
        best = np.lexsort((room, wanted))[-1]  # ties go to the part with more room
        parts[unit] = best
        lacking[best] -= matrix[unit]
        room[best] -= sizes[unit]

    while remaining.any():
        rarest = int(np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin())
        units = np.flatnonzero((parts < 0) & (matrix[:, rarest] > 0))
        for unit in units[np.lexsort((place[units], -matrix[units, rarest]))].tolist():
            take(unit, lacking[:, rarest])
        remaining -= (matrix[units] > 0).sum(0)
    rest = order[parts[order] < 0]
    for unit in rest[np.argsort(-sizes[rest], kind="stable")].tolist():
        take(unit, room)
    return parts
