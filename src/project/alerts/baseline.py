"""The baseline of a topic: a predictive distribution of the negative texts in the next window."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln

Floats = NDArray[np.float64]
MEMORY = 100
"""Windows after which the weight of a past window has fallen to 1/e, so that the baseline follows slow drift."""
STEP = 0.04
LOGITS = np.arange(-5, 5 + STEP / 2, STEP)
"""Logit of the mean share: 0.7 to 99.3 %."""
OVERDISPERSION = 0.001 * 2.0 ** np.arange(9)
"""Correlation of two texts of a window (beta-binomial). It is never 0: shares never vary by sampling alone."""
PERSISTENCE = np.array([0, 0.25, 0.5, 0.75])
"""Fraction of the last window's deviation that is expected in the next one (autoregression)."""
RISES = np.array([0.4, 0.8, 1.6])
"""Rises of the logit that are tested: from 30 % to 39, 49 and 68 %."""

_TOTAL = 1 / OVERDISPERSION[:, None] - 1
_SHARES = expit(LOGITS)
_A, _B = _SHARES * _TOTAL, (1 - _SHARES) * _TOTAL
_NORM = gammaln(_TOTAL) - gammaln(_A) - gammaln(_B)
_PRIOR = np.broadcast_to(  # uniform in the mean share, and in the logarithm of the overdispersion
    np.log(_SHARES * (1 - _SHARES)) + np.log([0.7, 0.1, 0.1, 0.1])[:, None, None],
    (len(PERSISTENCE), *_A.shape),
)
_KEPT = math.exp(-1 / MEMORY)
_FURTHEST = 2.0
"""Largest deviation of a logit that is carried over to the next window."""
_STEPS = np.rint(RISES / STEP).astype(int).tolist()
_PAD = _STEPS[-1] + round(PERSISTENCE[-1] * _FURTHEST / STEP)


class Baseline:
    """Bayesian beta-binomial model of a topic's windows, whose posterior is kept on a grid.

    The parameters are the mean share, the overdispersion and the persistence. Each update first discounts the posterior
    (power steady model: Smith, A Generalization of the Bayesian Steady Forecasting Model, 1979), so that windows long
    past are forgotten. That the last deviation shifts the logit of the next mean makes it a generalized autoregressive
    model (Benjamin, Rigby and Stasinopoulos, Generalized Autoregressive Moving Average Models, 2003).

    Attributes:
        share: Mean share, in (0, 1), without the effect of the last deviation.
    """

    def __init__(self) -> None:
        self._log_posterior: Floats = _PRIOR
        self._deviation = 0.0
        self._normalize()

    def e_values(self, texts: int, negative: int, learn: bool = True) -> Floats:
        """Return the e-value of a window against each of `RISES`, float64 (rises,).

        It is the ratio of the predictive probability of the window after a rise to that without one. If the window
        follows the latter distribution, its expected value is 1, whatever the past.

        Args:
            texts: Number of texts in the window, at least 1.
            negative: How many of them are negative.
            learn: Update the baseline with the window afterwards; otherwise forget the last deviation instead.
        """
        if not learn:
            self._deviation = 0.0
        log_likelihood = gammaln(_A + negative) + gammaln(_B + (texts - negative)) - gammaln(_TOTAL + texts) + _NORM
        log_likelihood -= log_likelihood.max()
        padded = np.pad(log_likelihood, ((0, 0), (_PAD, _PAD)), mode="edge")
        likelihood = np.exp(padded)
        moved = np.rint(PERSISTENCE * self._deviation / STEP).astype(int).tolist()

        def predictive(rise: int) -> float:
            """Return the probability of the window, up to a factor, after a rise by this number of steps."""
            pairs = zip(self._posterior, moved, strict=True)
            return float(sum(np.einsum("rl,rl->", each, _shift(likelihood, by + rise)) for each, by in pairs))

        e_values = np.array([predictive(rise) for rise in _STEPS]) / predictive(0)
        if learn:
            self._log_posterior = _KEPT * self._log_posterior + (1 - _KEPT) * _PRIOR
            for each, by in zip(self._log_posterior, moved, strict=True):
                each += _shift(padded, by)
            self._normalize()
            deviation = (negative / texts - self.share) / (self.share * (1 - self.share))  # of the logit
            self._deviation = float(np.clip(deviation, -_FURTHEST, _FURTHEST))
        return e_values

    def _normalize(self) -> None:
        """Update the probability of each (persistence, overdispersion, mean), and the mean share."""
        weights = np.exp(self._log_posterior - self._log_posterior.max())
        self._posterior: Floats = weights / weights.sum()
        self.share = float(self._posterior.sum((0, 1)) @ _SHARES)


def _shift(padded: Floats, by: int) -> Floats:
    """Return values (N, logits) at logits that are `by` steps higher; beyond the grid they are those at its end."""
    return padded[:, _PAD + by : _PAD + by + len(LOGITS)]
