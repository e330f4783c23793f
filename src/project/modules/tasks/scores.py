"""Metrics that need the scores of all samples: AUROC, average precision, rank correlation."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from project.modules.tasks.task import LossMetric


class ScoreMetric(LossMetric):
    """Base class of metrics that keep the outputs and targets of all samples, gathered over all processes.

    Subclasses implement `compute` with `gathered`.
    """

    outputs: list[Tensor] | Tensor
    targets: list[Tensor] | Tensor

    def keep_scores(self) -> None:
        """Add the states; called by the constructor of a subclass."""
        self.add_state("outputs", [], "cat")
        self.add_state("targets", [], "cat")

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Keep a batch."""
        assert isinstance(self.outputs, list) and isinstance(self.targets, list)
        self.outputs.append(outputs)
        self.targets.append(target)

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Return the outputs and the targets of all samples."""
        outputs, targets = (x if isinstance(x, Tensor) else torch.cat(x) for x in (self.outputs, self.targets))
        return outputs, targets


def ranking(scores: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return the AUROC and the average precision of each column, float64 (columns,), as scikit-learn defines them.

    Args:
        scores: float (N, columns).
        truth: 0 or 1, NaN if unknown, float (N, columns).

    Returns:
        `auroc` and `average_precision`; NaN for columns that do not have both values.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    figures = np.full((2, scores.shape[1]), np.nan)
    for column, (score, label) in enumerate(zip(scores.double().cpu().numpy().T, truth.cpu().numpy().T, strict=True)):
        known = ~np.isnan(label)
        if len(np.unique(label[known])) == 2:
            for row, metric in enumerate((roc_auc_score, average_precision_score)):
                figures[row, column] = metric(label[known], score[known])
    return dict(zip(("auroc", "average_precision"), torch.from_numpy(figures), strict=True))


def nanmean(values: Tensor | NDArray[np.float64] | Sequence[float]) -> Tensor:
    """Return the mean without NaN as a scalar tensor, NaN if there is no other value."""
    return torch.as_tensor(values, dtype=torch.float64).nanmean().float()


def known_mean(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean over the known outputs of each sample, (N,), NaN without any.

    Args:
        values: float (N, outputs).
        known: bool (N, outputs).
    """
    count = known.sum(1)
    return (values.where(known, 0).sum(1) / count.clamp(min=1)).masked_fill(count == 0, torch.nan)
