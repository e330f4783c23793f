"""The sequential test on made streams."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import betabinom

from project.alerts.baseline import LOGITS, OVERDISPERSION, Baseline
from project.alerts.detector import LASTING, WARM_UP, Alert, SurgeDetector


def run(shares: np.ndarray, texts: int, rate: float = 0.001, seed: int = 0) -> tuple[list[Alert], SurgeDetector]:
    """Return the alerts of a stream in which the share of each window is given."""
    rng, detector = np.random.default_rng(seed), SurgeDetector(rate)
    found = []
    for window, share in enumerate(shares):
        result = detector.update(window, {"news": (texts, int(rng.binomial(texts, share)))})["news"]
        found += [result.alert] if result.alert else []
    return found, detector


def test_e_values_have_mean_one() -> None:
    texts, numbers = 40, np.arange(41)
    prior = expit(LOGITS) * expit(-LOGITS)  # of a new baseline: uniform in the share
    total = 1 / OVERDISPERSION[:, None] - 1
    parameters = (expit(LOGITS) * total)[..., None], (expit(-LOGITS) * total)[..., None]
    each = betabinom.pmf(numbers, texts, *parameters)
    predictive = (each * prior[None, :, None]).sum((0, 1)) / prior.sum() / len(OVERDISPERSION)
    e_values = np.array([Baseline().e_values(texts, number) for number in numbers.tolist()])
    assert predictive.sum() == pytest.approx(1)
    assert predictive @ e_values == pytest.approx(np.ones(e_values.shape[1]), abs=1e-6)


def test_baseline_learns_share_and_overdispersion() -> None:
    rng = np.random.default_rng(0)
    steady, varied = Baseline(), Baseline()
    for _ in range(150):
        steady.e_values(100, int(rng.binomial(100, 0.3)))
        varied.e_values(100, int(rng.binomial(100, rng.beta(3, 7))))  # overdispersion 1 / 11
    assert steady.share == pytest.approx(0.3, abs=0.03) and varied.share == pytest.approx(0.3, abs=0.06)
    surprise = steady.e_values(100, 45, learn=False), varied.e_values(100, 45, learn=False)
    assert surprise[0].max() > 30 > 3 > surprise[1].max()


def test_a_surge_raises_one_alert_with_its_start() -> None:
    shares = np.full(200, 0.3)
    shares[100:120] = 0.5
    (alert,), _ = run(shares, 60)
    assert 100 <= alert.window <= 104 and abs(alert.since - 100) <= 2
    assert alert.expected == pytest.approx(0.3, abs=0.04) and alert.negative / alert.texts > 0.4
    assert alert.until is not None and 119 <= alert.until <= 126
    assert alert.evidence >= alert.threshold == 1000


def test_a_lasting_rise_becomes_the_baseline() -> None:
    shares = np.full(350, 0.3)
    shares[100:] = 0.55
    (alert,), _ = run(shares, 60)
    assert alert.until == alert.window + LASTING
    shares[250:270] = 0.8
    (_, second), _ = run(shares, 60)
    assert 250 <= second.window <= 255 and second.expected == pytest.approx(0.55, abs=0.05)


def test_falls_and_the_warm_up_raise_no_alert() -> None:
    shares = np.full(120, 0.5)
    shares[60:] = 0.2
    assert run(shares, 60)[0] == []
    shares = np.full(WARM_UP, 0.2)
    shares[10:] = 0.8
    found, detector = run(shares, 60)
    assert found == [] and detector.tested == 0


def test_more_topics_need_more_evidence() -> None:
    rng, detector, thresholds = np.random.default_rng(0), SurgeDetector(0.01), []
    for window in range(120):
        rising = 0.3 + 0.4 * (window >= 100)
        counts = {f"topic {i}": (50, int(rng.binomial(50, rising))) for i in range(4)}
        thresholds += [each.alert.threshold for each in detector.update(window, counts).values() if each.alert]
    assert thresholds == [400] * 4


def test_false_alerts_of_overdispersed_shares_stay_below_the_rate() -> None:
    rate, windows, alerts = 0.02, 300, 0
    for seed in range(6):
        shares = np.random.default_rng(seed).beta(10, 23, windows)  # overdispersion 0.03
        alerts += len(run(shares, 200, rate, seed)[0])
    assert alerts <= rate * 6 * windows == 36
