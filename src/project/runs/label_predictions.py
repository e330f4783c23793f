"""Metrics of the predictions of a multi-label test."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from project.output import SEPARATOR
from project.runs.predictions import Bin, calibration_bins
from project.runs.statistics import precision_recall_f1, ranking
from project.runs.value_predictions import numbers


@dataclass(frozen=True)
class LabelPredictions:
    """Predictions of a multi-label test, one entry per sample.

    Attributes:
        names: Label names.
        paths: Sample paths.
        truth: 0 or 1, NaN if unknown, float64 (N, labels).
        predicted: bool (N, labels).
        scores: Probability of each label, float64 (N, labels) in [0, 1].
    """

    names: list[str]
    paths: list[str]
    truth: NDArray[np.float64]
    predicted: NDArray[np.bool_]
    scores: NDArray[np.float64]

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[str]], names: list[str]) -> "LabelPredictions":
        """Return the predictions of the rows of test_predictions.csv."""
        chosen = [f"{SEPARATOR}{row[2]}{SEPARATOR}" for row in rows]
        predicted = np.array([[f"{SEPARATOR}{name}{SEPARATOR}" in cell for name in names] for cell in chosen])
        both = numbers([row[3:] for row in rows])
        return cls(names, [row[0] for row in rows], both[:, : len(names)], predicted, both[:, len(names) :])

    def subset(self, rows: NDArray[np.int64]) -> "LabelPredictions":
        """Return the predictions of the given rows."""
        paths = [self.paths[row] for row in rows]
        return LabelPredictions(self.names, paths, self.truth[rows], self.predicted[rows], self.scores[rows])

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Mask of the known labels, bool (N, labels)."""
        return ~np.isnan(self.truth)

    @cached_property
    def exact(self) -> NDArray[np.bool_]:
        """Mask of the samples whose known labels are all predicted correctly, bool (N,)."""
        result: NDArray[np.bool_] = (((self.truth == 1) == self.predicted) | ~self.known).all(1)
        return result

    @cached_property
    def per_label(self) -> dict[str, NDArray[np.float64]]:
        """Metrics by label, each (labels,), of the samples for which the label is known.

        `samples` with the label, number of `known` ones, `precision`, `recall` and `f1`, NaN for labels that are
        neither present nor predicted; `average_precision` and `auroc`, NaN for labels present in no or in all samples.
        """
        present, predicted = self.truth == 1, self.predicted & self.known
        counts = (present & predicted).sum(0), present.sum(0), predicted.sum(0)
        rates = precision_recall_f1(*counts)
        seen = counts[1] + counts[2] > 0
        found = {"samples": counts[1].astype(float), "known": self.known.sum(0).astype(float)}
        found |= {name: np.where(seen, values, np.nan) for name, values in rates.items()}
        return found | ranking(self.scores, self.truth)

    @cached_property
    def bins(self) -> list[Bin]:
        """The non-empty calibration bins of the probabilities of all known labels; accuracy is the share present."""
        return calibration_bins(self.scores[self.known], self.truth[self.known] == 1)
