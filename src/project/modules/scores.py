"""The metrics of one stage, all derived from two exact sums: the loss and the confusion matrix."""

import torch
from torch import Tensor, nn
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from project.interface import StageResult


class Scores(nn.Module):
    """Loss, accuracy (micro), precision, recall and F1 (macro), exact over uneven batches and several processes.

    One count a step keeps the cost of a step low and gives every figure, per class and overall, from the same
    numbers. Macro means are over the classes that occur among labels or predictions, as in torchmetrics.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # Looking for NaN would wait for the device at each step; a MeanMetric that does not look forgets the weights.
        self.total, self.images = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)

    def update(self, loss: Tensor, logits: Tensor, label: Tensor, only_finite: bool = False) -> None:
        """Count one batch: its mean loss, logits (N, classes), labels (N,) or label probabilities (N, classes).

        With `only_finite` a loss that is not is left out of the mean.
        """
        target = label.argmax(1) if label.ndim == 2 else label
        loss, weight = loss.detach().float(), torch.tensor(float(len(target)), device=loss.device)
        if only_finite:
            loss, weight = loss.nan_to_num(0, 0, 0), weight * loss.isfinite()
        self.total.update(loss * weight)
        self.images.update(weight)
        self.confusion.update(logits.detach().argmax(1), target)

    def compute(self) -> StageResult:
        """Everything counted since the last reset, synchronised over processes."""
        counts: Tensor = self.confusion.compute()
        hits, truths, guesses = counts.diag(), counts.sum(1), counts.sum(0)
        per_class = {
            "precision": hits / guesses.clamp(min=1),
            "recall": hits / truths.clamp(min=1),
            "f1": 2 * hits / (truths + guesses).clamp(min=1),
        }
        seen = (truths + guesses) > 0
        scalars = {"loss": self.total.compute() / self.images.compute(), "acc": hits.sum() / truths.sum().clamp(min=1)}
        scalars |= {name: values[seen].mean() for name, values in per_class.items()}
        return StageResult(scalars, per_class | {"images": truths}, counts)

    def counted(self) -> dict[str, Tensor]:
        """The sums since the last reset, of this process: loss (2,), confusion int64 (classes, classes)."""
        return {"loss": torch.stack([self.total.sum_value, self.images.sum_value]), "confusion": self.confusion.confmat}

    def count_on(self, sums: dict[str, Tensor]) -> None:
        """Go on from sums that `counted` gave."""
        device = self.confusion.device
        self.total.sum_value, self.images.sum_value = sums["loss"].to(device).clone()
        self.confusion.confmat = sums["confusion"].to(device)

    def reset(self) -> None:
        """Start a new epoch."""
        self.total.reset()
        self.images.reset()
        self.confusion.reset()
