"""Metrics of the predictions of a regression test."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from project.runs.statistics import value_metrics


@dataclass(frozen=True)
class ValuePredictions:
    """Predictions of a regression test, one entry per sample, in the units of the data.

    Attributes:
        names: Names of the values.
        paths: Sample paths.
        truth: float64 (N, values), NaN if unknown.
        predicted: float64 (N, values).
    """

    names: list[str]
    paths: list[str]
    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[str]], names: list[str]) -> "ValuePredictions":
        """Return the predictions of the rows of test_predictions.csv."""
        both = numbers([row[1:] for row in rows])
        return cls(names, [row[0] for row in rows], both[:, : len(names)], both[:, len(names) :])

    def subset(self, rows: NDArray[np.int64]) -> "ValuePredictions":
        """Return the predictions of the given rows."""
        return ValuePredictions(self.names, [self.paths[row] for row in rows], self.truth[rows], self.predicted[rows])

    @cached_property
    def per_value(self) -> dict[str, NDArray[Any]]:
        """Metrics by value, each (values,): `mae`, `rmse`, `r2`, `spearman`, and the number of `known` samples."""
        return value_metrics(self.predicted, self.truth)


def numbers(cells: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return cells as float64 (rows, columns), NaN for empty ones."""
    return np.array([[cell or "nan" for cell in row] for row in cells]).astype(np.float64)
