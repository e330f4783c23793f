"""Privacy accounting. A history is a list of [noise multiplier, sampling rate, steps], in order."""

import math
import warnings
from bisect import bisect_right
from functools import lru_cache

from project.errors import UserError

History = list[list[float]]
MIN_EPSILON = 0.02  # smallest budget: epsilon is computed to within 0.01


def epsilon_of(history: History, delta: float) -> float:
    """Return the epsilon of a history, an upper bound within 0.01, for adding or removing one image."""
    return _epsilon_of(tuple((noise, rate, int(steps)) for noise, rate, steps in history), delta)


@lru_cache(maxsize=16)  # called several times at the end of an epoch
def _epsilon_of(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    from opacus.accountants import PRVAccountant

    if not history:
        return 0.0
    accountant = PRVAccountant()  # Gopi, Lee, Wutschitz, Numerical Composition of Differential Privacy, 2021
    accountant.history = list(history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about densities that underflow in the tails
        try:
            return float(accountant.get_epsilon(delta))
        except ValueError as error:
            raise UserError(
                f"epsilon cannot be computed at delta {delta:g} ({error}): choose a larger delta"
            ) from error


def add_steps(history: History, noise: float, rate: float, steps: int) -> History:
    """Return the history after additional steps."""
    if history and history[-1][:2] == [noise, rate]:
        return [*history[:-1], [noise, rate, history[-1][2] + steps]]
    return [*history, [noise, rate, steps]]


def steps_within(epsilon: float, delta: float, history: History, noise: float, rate: float, limit: float) -> int:
    """Return the number of additional steps within a budget, at most `limit`, which may be infinite."""

    def spent(steps: int) -> float:
        return epsilon_of(add_steps(history, noise, rate, steps), delta)

    if limit < math.inf and spent(int(limit)) <= epsilon:
        return int(limit)
    low, high = 0, 1
    while high < limit and spent(high) <= epsilon:
        low, high = high, 2 * high
    return low + bisect_right(range(low + 1, high), epsilon, key=spent)


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Return the smallest noise multiplier, to within about 1 %, for which the steps stay within a budget."""
    low, high = 0.2, 0.4
    while epsilon_of([[high, rate, steps]], delta) > epsilon:
        low, high = high, 2 * high
    while high - low > 0.005 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if epsilon_of([[middle, rate, steps]], delta) <= epsilon else (middle, high)
    return math.ceil(high * 1000) / 1000
