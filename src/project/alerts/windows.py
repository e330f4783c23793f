"""Counts of predicted classes by topic in windows of time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from project.alerts.times import MONDAY, UNITS

Counts = NDArray[np.int64]


class Window(NamedTuple):
    """A window of time.

    Attributes:
        start: In seconds since 1970.
        counts: By topic: the number of texts, then that of each class or label, int64 (1 + outputs,).
    """

    start: int
    counts: dict[str, Counts]


class Windows:
    """Counts texts in windows that start at multiples of their length in UTC, and weeks on Monday.

    A window is complete when a text of a later one is added. Texts of a complete window are late: they are not counted.

    Args:
        every: Length of a window in seconds.
        outputs: Number of classes or labels.

    Attributes:
        late: Number of late texts.
    """

    def __init__(self, every: int, outputs: int) -> None:
        self.every, self.outputs, self.late = every, outputs, 0
        self._origin = MONDAY if every % UNITS["w"] == 0 else 0.0
        self._open: dict[int, dict[str, Counts]] = {}
        self._complete = -np.inf  # windows that start before are complete

    def add(self, times: NDArray[np.float64], topics: Sequence[str], predicted: NDArray[np.bool_]) -> list[Window]:
        """Count texts, and return the windows that they complete, in the order of time.

        Args:
            times: In seconds since 1970, float64 (N,).
            topics: Topic of each text, N.
            predicted: Whether a text is of each class or label, bool (N, outputs).
        """
        starts = np.floor((times - self._origin) / self.every) * self.every + self._origin
        late = starts < self._complete
        self.late += int(late.sum())
        for row in np.flatnonzero(~late).tolist():
            counts = self._open.setdefault(int(starts[row]), {}).setdefault(
                topics[row], np.zeros(1 + self.outputs, np.int64)
            )
            counts[0] += 1
            counts[1:] += predicted[row]
        return self._take(max(self._open, default=0))

    def finish(self) -> list[Window]:
        """Return the windows that are not complete."""
        return self._take(np.inf)

    def _take(self, before: float) -> list[Window]:
        self._complete = max(self._complete, before)
        return [Window(start, self._open.pop(start)) for start in sorted(self._open) if start < before]
