"""Alerts on made streams: false alerts per 1,000 windows, and delay after planted surges.

    python benchmarks/alerts.py [--runs 20] [--topics 5] [--windows 1000] [--surges 100]

Each stream has the counts of texts and of negative ones in the windows of several topics, without a model. Nothing
happens in them but what their names say, so that every alert is false; in the second table, a topic's share rises by 10
or 20 points for 60 windows after 120. The e-detector of `train.py alerts` is compared to two fixed thresholds of a
window's share: 15 points above the usual share, which is known, and three standard deviations above the mean of the
last 100 windows. Their alerts end with the first window below.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from project.alerts.detector import WARM_UP, SurgeDetector

RATE = 1.0  # false alerts per 1,000 windows over all topics
QUIET, LENGTH = 120, 60
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Stream(NamedTuple):
    """Mean number of texts in a window, and the share of negative ones before sampling, both (windows,)."""

    share: Callable[[np.random.Generator, int], Floats]
    texts: Callable[[int], Floats]
    usual: float = 0.3


def constant(share: float) -> Callable[[np.random.Generator, int], Floats]:
    """Return the share of a binomial stream."""
    return lambda rng, windows: np.full(windows, share)


def overdispersed(correlation: float) -> Callable[[np.random.Generator, int], Floats]:
    """Return the share of a beta-binomial stream, whose texts have this correlation within a window."""
    total = 1 / correlation - 1
    return lambda rng, windows: rng.beta(0.3 * total, 0.7 * total, windows)


def heavy_tailed(rng: np.random.Generator, windows: int) -> Floats:
    """Return shares whose logits have Student's t distribution of 3 degrees of freedom, standard deviation 0.3."""
    return expit(logit(0.3) + 0.3 / np.sqrt(3) * rng.standard_t(3, windows))


def autocorrelated(correlation: float) -> Callable[[np.random.Generator, int], Floats]:
    """Return shares whose logits are a first-order autoregression with standard deviation 0.3."""

    def share(rng: np.random.Generator, windows: int) -> Floats:
        logits, noise = np.zeros(windows), rng.normal(0, 0.3, windows)
        for i in range(windows):
            logits[i] = noise[i] if i == 0 else correlation * logits[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
        return expit(logit(0.3) + logits)

    return share


def daily(rng: np.random.Generator, windows: int) -> Floats:
    """Return shares between 25 and 35 % with a period of 24 windows."""
    return 0.3 + 0.05 * np.sin(2 * np.pi * np.arange(windows) / 24)


def drifting(rng: np.random.Generator, windows: int) -> Floats:
    """Return shares that rise by one point in 100 windows."""
    return 0.3 + 0.0001 * np.arange(windows)


def about(texts: float) -> Callable[[int], Floats]:
    """Return a constant mean number of texts."""
    return lambda windows: np.full(windows, texts)


def growing(windows: int) -> Floats:
    """Return a number of texts between 10 and 300 that rises and falls over 500 windows."""
    return np.exp(np.log(55) + 1.7 * np.sin(2 * np.pi * np.arange(windows) / 500))


STREAMS = {
    "binomial, 30 texts": Stream(constant(0.3), about(30)),
    "binomial, 200 texts": Stream(constant(0.3), about(200)),
    "binomial, 3 texts": Stream(constant(0.3), about(3)),
    "binomial, 5 % of 30 texts": Stream(constant(0.05), about(30), 0.05),
    "volume from 10 to 300": Stream(constant(0.3), growing),
    "overdispersed 0.01, 30 texts": Stream(overdispersed(0.01), about(30)),
    "overdispersed 0.01, 200 texts": Stream(overdispersed(0.01), about(200)),
    "overdispersed 0.03, 200 texts": Stream(overdispersed(0.03), about(200)),
    "drift, 30 texts": Stream(drifting, about(30)),
    "drift, 200 texts": Stream(drifting, about(200)),
    "daily cycle, 200 texts": Stream(daily, about(200)),
    "autocorrelated 0.5, 30 texts": Stream(autocorrelated(0.5), about(30)),
    "autocorrelated 0.5, 200 texts": Stream(autocorrelated(0.5), about(200)),
    "autocorrelated 0.9, 30 texts": Stream(autocorrelated(0.9), about(30)),
    "autocorrelated 0.9, 200 texts": Stream(autocorrelated(0.9), about(200)),
    "heavy-tailed, 200 texts": Stream(heavy_tailed, about(200)),
}
METHODS = ("e-detector", "usual + 15 points", "mean + 3 sd")


def draw(stream: Stream, rng: np.random.Generator, windows: int, rise: float = 0.0) -> tuple[Counts, Counts]:
    """Return the number of texts and of negative ones in each window, (windows,); the share rises after `QUIET`."""
    share = stream.share(rng, windows)
    if rise:
        share = share.copy()
        share[QUIET:] = np.minimum(share[QUIET:] + rise, 1)
    texts = rng.poisson(stream.texts(windows))
    return texts, rng.binomial(texts, share)


def alert_states(stream: Stream, texts: Counts, negative: Counts, topics: int) -> tuple[Floats, Floats]:
    """Return whether an alert is raised, and whether one lasts, in each window by method, 0 or 1 (methods, windows)."""
    windows = len(texts)
    raised, lasts = np.zeros((len(METHODS), windows)), np.zeros((len(METHODS), windows))
    detector, active = SurgeDetector(RATE / 1000 / topics), False  # as for each of several topics
    for window in np.flatnonzero(texts).tolist():
        result = detector.update(window, {"": (int(texts[window]), int(negative[window]))})[""]
        raised[0, window] = result.alert is not None
        active = (active or result.alert is not None) and result.ended is None
        lasts[0, window] = active
    share = negative / np.maximum(texts, 1)
    lasts[1] = share > stream.usual + 0.15
    for window in range(WARM_UP, windows):
        past = share[max(0, window - 100) : window][texts[max(0, window - 100) : window] > 0]
        lasts[2, window] = len(past) > 1 and share[window] > past.mean() + 3 * past.std(ddof=1)
    raised[1:] = np.diff(lasts[1:], axis=1, prepend=0) > 0
    return raised, lasts


def main() -> None:
    """Run the benchmark and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--topics", type=int, default=5)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--surges", type=int, default=100)
    args = parser.parse_args()
    start, tested = time.perf_counter(), 0
    print(f"numpy {np.__version__}, load {os.getloadavg()[0]:.1f}; {args.topics} topics, {RATE:g} per 1,000 allowed\n")
    print(f"{'false alerts per 1,000 windows':<32}{''.join(f'{name:>20}' for name in METHODS)}", flush=True)
    for number, (name, stream) in enumerate(STREAMS.items()):
        rng, total = np.random.default_rng((0, number)), np.zeros(len(METHODS))
        for _ in range(args.runs * args.topics):
            raised, _ = alert_states(stream, *draw(stream, rng, args.windows), args.topics)
            total += raised[:, WARM_UP:].sum(1)
        tested += args.runs * args.topics * args.windows
        rates = total * 1000 / args.runs / (args.windows - WARM_UP)
        print(f"{name:<32}{''.join(f'{rate:>20.2f}' for rate in rates)}", flush=True)
    print(f"\n{'windows to the alert: median, 90 %':<38}{''.join(f'{name:>20}' for name in METHODS)}")
    for rise in (0.1, 0.2):
        for number, (name, stream) in enumerate(STREAMS.items()):
            rng, delays = np.random.default_rng((1, number)), np.full((len(METHODS), args.surges), np.inf)
            for run in range(args.surges):
                counts = draw(stream, rng, QUIET + LENGTH, rise)
                _, lasts = alert_states(stream, *counts, args.topics)
                during = lasts[:, QUIET:]
                delays[:, run] = np.where(during.any(1), during.argmax(1) + 1, np.inf)
            tested += args.surges * (QUIET + LENGTH)
            cells = [_quantiles(each) for each in delays]
            print(f"{f'+{rise * 100:.0f} points, {name}':<38}{''.join(f'{cell:>20}' for cell in cells)}", flush=True)
    seconds = time.perf_counter() - start
    print(f"\n{tested:,} windows, {seconds / tested * 1000:.2f} ms each")


def _quantiles(delays: Floats) -> str:
    """Return the median and the 90 % quantile of delays; `missed` for those without an alert."""
    values = np.quantile(delays, [0.5, 0.9], method="higher")
    return ", ".join("missed" if np.isinf(value) else f"{value:.0f}" for value in values)


if __name__ == "__main__":
    main()
