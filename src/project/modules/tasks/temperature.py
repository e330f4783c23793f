"""Temperature scaling of the logits of mutually exclusive classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from project.errors import UserError
from project.output import pluralize


def fit_temperature(logits: Tensor, label: Tensor, sample: str = "image") -> float:
    """Return the temperature with the lowest log loss.

    Guo et al., On Calibration of Modern Neural Networks, 2017.

    Args:
        logits: float64 (N, classes).
        label: int64 (N,).
        sample: Singular noun for a sample.

    Raises:
        UserError: all predictions are correct, or the model is no better than chance.
    """
    of_label = logits.gather(1, label[:, None])[:, 0]
    rivals = logits.scatter(1, label[:, None], -torch.inf).max(1).values
    if (rivals < of_label).all():
        raise UserError(
            f"the model predicts all {pluralize(len(label), f'val {sample}')} correctly, so no temperature can be"
            f" fitted: calibrate on more {sample}s, --data.root DIR or --data.table FILE"
        )
    if (of_label - logits.mean(1)).mean() <= 0:
        raise UserError("the model is no better than chance on val: calibration cannot fix that")
    # Optimized in log space, which keeps the temperature positive; the log loss has a single minimum.
    logarithm = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logarithm], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / logarithm.exp(), label)
        loss.backward()
        return loss

    optimizer.step(closure)
    return math.exp(float(logarithm.detach()))
