"""The metrics of one stage, all derived from two exact sums: the loss and the confusion matrix."""

import torch
from torch import Tensor
from torchmetrics import Metric

from project.interface import StageResult


class Scores(Metric):
    """Loss, accuracy (micro), precision, recall and F1 (macro), exact over uneven batches and several processes.

    One count a step keeps the cost of a step low and gives every figure, per class and overall, from the same
    numbers; on a GPU no step waits for it. Macro means are over the classes that occur among labels or predictions, as
    in torchmetrics.

    Args:
        num_classes: Number of classes.
    """

    full_state_update = False
    loss_sum: Tensor
    images: Tensor
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros(()), "sum")
        self.add_state("images", torch.zeros(()), "sum")
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), "sum")

    def update(self, loss: Tensor, logits: Tensor, label: Tensor, only_finite: bool = False) -> None:
        """Count one batch: its mean loss, logits (N, classes), labels (N,) or label probabilities (N, classes).

        With `only_finite` a batch whose loss is not is left out.
        """
        target = label.argmax(1) if label.ndim == 2 else label
        loss = loss.detach().float()
        counts = loss.isfinite() if only_finite else torch.ones_like(loss, dtype=torch.bool)
        self.loss_sum = self.loss_sum + loss.where(counts, 0) * len(target)
        self.images = self.images + counts * len(target)
        cell = target * len(self.confusion) + logits.detach().argmax(1)
        # Not bincount, which waits for the device to know how much to return.
        self.confusion = (
            self.confusion.flatten().scatter_add(0, cell, counts.to(cell).expand_as(cell)).view_as(self.confusion)
        )

    def compute(self) -> StageResult:
        """Everything counted since the last reset, synchronised over processes."""
        counts = self.confusion
        hits, truths, guesses = counts.diag(), counts.sum(1), counts.sum(0)
        per_class = {
            "precision": hits / guesses.clamp(min=1),
            "recall": hits / truths.clamp(min=1),
            "f1": 2 * hits / (truths + guesses).clamp(min=1),
        }
        seen = (truths + guesses) > 0
        scalars = {"loss": self.loss_sum / self.images, "acc": hits.sum() / truths.sum().clamp(min=1)}
        scalars |= {name: values[seen].mean() for name, values in per_class.items()}
        return StageResult(scalars, per_class | {"images": truths}, counts)

    def counted(self) -> dict[str, Tensor]:
        """The sums since the last reset, of this process: loss (2,), confusion int64 (classes, classes)."""
        return {"loss": torch.stack([self.loss_sum, self.images]), "confusion": self.confusion}

    def count_on(self, sums: dict[str, Tensor]) -> None:
        """Go on from sums that `counted` gave."""
        self.loss_sum, self.images = sums["loss"].to(self.device).clone()
        self.confusion = sums["confusion"].to(self.device)
