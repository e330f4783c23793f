"""Sequential test for rises of the negative share: an e-detector for each topic, corrected for their number."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from project.alerts.baseline import RISES, Baseline

WARM_UP = 20
"""Windows of a topic from which its baseline is learned before it is tested."""
RECOVERED = 20.0
"""An alert ends when the last windows are this many times as probable without a rise as with the smallest one."""
LASTING = 50
"""Windows of an alert after which the raised share is taken as the new baseline."""


@dataclass
class Alert:
    """A rise of the negative share of a topic beyond what its past explains.

    Attributes:
        topic: The topic.
        window: Start of the window in which the alert was raised, in seconds since 1970.
        since: Estimated start of the rise: start of the window since when the evidence has been growing.
        texts: Number of texts in the windows from `since` to `window`.
        negative: How many of them are negative.
        expected: Share of the baseline, in (0, 1).
        evidence: Shiryaev-Roberts statistic; `threshold` is the number that it reached.
        until: Start of the first window after the rise; None while it lasts.
    """

    topic: str
    window: float
    since: float
    texts: int
    negative: int
    expected: float
    evidence: float
    threshold: float
    until: float | None = None


@dataclass(frozen=True)
class Result:
    """A tested window of a topic.

    Attributes:
        expected: Share of the baseline before the window, in (0, 1).
        evidence: Shiryaev-Roberts statistic divided by its threshold: an alert is raised at 1. None if the window was
            not tested, in the warm-up and during an alert.
        alert: The alert that the window raised.
        ended: The alert that it ended.
    """

    expected: float
    evidence: float | None
    alert: Alert | None = None
    ended: Alert | None = None


@dataclass
class _Topic:
    """State of a topic; arrays are float64 (rises,)."""

    baseline: Baseline = field(default_factory=Baseline)
    windows: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(RISES)))
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(RISES)))
    rising: list[list[tuple[float, int, int]]] = field(default_factory=lambda: [[] for _ in RISES])
    alert: Alert | None = None
    during: list[tuple[int, int]] = field(default_factory=list)
    recovery: float = 0.0

    def restart(self) -> None:
        """Start the test again."""
        self.alert, self.recovery, self.during = None, 0.0, []
        self.sums, self.products = np.zeros(len(RISES)), np.zeros(len(RISES))
        self.rising = [[] for _ in RISES]


class SurgeDetector:
    """Raises an alert for each topic whose negative share rises.

    The evidence of a topic is the Shiryaev-Roberts statistic of its windows' e-values, a mean over the rises that are
    tested: Shin, Ramdas and Rinaldo, E-detectors: A Nonparametric Framework for Sequential Change Detection, 2023. An
    alert is raised when it reaches (number of topics) / rate. The statistic minus the number of windows has no upward
    trend where there is no rise, so that W windows raise at most rate x W alerts in expectation, over all topics
    together and including the restarts after alerts. This is exact where the windows follow the predictive distribution
    of the baseline.

    Args:
        rate: Expected number of false alerts per window, over all topics together, above 0 and below 1.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._topics: dict[str, _Topic] = {}

    @property
    def tested(self) -> int:
        """Number of topics whose warm-up is over."""
        return sum(topic.windows > WARM_UP for topic in self._topics.values())

    def update(self, window: float, counts: Mapping[str, tuple[int, int]]) -> dict[str, Result]:
        """Test one window of all topics, which must be given in the order of time.

        Args:
            window: Start of the window, in seconds since 1970.
            counts: Number of texts, at least 1, and of negative ones, by topic.

        Returns:
            The result of each topic.
        """
        for name in counts:
            self._topics.setdefault(name, _Topic()).windows += 1
        threshold = max(1, self.tested) / self.rate
        return {name: self._test(name, window, *both, threshold) for name, both in counts.items()}

    def _test(self, name: str, window: float, texts: int, negative: int, threshold: float) -> Result:
        topic = self._topics[name]
        expected = topic.baseline.share
        if topic.alert is not None:
            return Result(expected, None, ended=self._follow(topic, window, texts, negative))
        e_values = topic.baseline.e_values(texts, negative)
        if topic.windows <= WARM_UP:
            return Result(expected, None)
        topic.sums = (topic.sums + 1) * e_values
        for rise, product in enumerate(topic.products.tolist()):
            if product <= 1:
                topic.rising[rise] = []
            topic.rising[rise].append((window, texts, negative))
        topic.products = np.maximum(topic.products, 1) * e_values
        evidence = float(topic.sums.mean())
        if evidence < threshold:
            return Result(expected, evidence / threshold)
        (since, *_), *_ = rising = topic.rising[int(topic.sums.argmax())]
        _, all_texts, all_negative = np.sum(rising, axis=0).tolist()
        alert = Alert(name, window, since, int(all_texts), int(all_negative), expected, evidence, threshold)
        topic.restart()
        topic.alert = alert
        return Result(expected, evidence / threshold, alert)

    def _follow(self, topic: _Topic, window: float, texts: int, negative: int) -> Alert | None:
        """Compare a window during an alert to the baseline before it; return the alert if it ends."""
        alert = topic.alert
        assert alert is not None
        topic.during.append((texts, negative))
        topic.recovery = max(topic.recovery, 1) / float(topic.baseline.e_values(texts, negative, learn=False)[0])
        if topic.recovery < RECOVERED and len(topic.during) < LASTING:
            return None
        if topic.recovery < RECOVERED:  # the new baseline
            topic.baseline = Baseline()
            for past in topic.during:
                topic.baseline.e_values(*past)
        alert.until = window
        topic.restart()
        return alert
