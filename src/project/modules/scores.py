"""The metrics of one stage, all derived from two exact sums: the loss and the confusion matrix."""

from torch import Tensor, nn
from torchmetrics import MeanMetric
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
        self.loss = MeanMetric()
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)

    def update(self, loss: Tensor, logits: Tensor, label: Tensor) -> None:
        """Count one batch: its mean loss, logits (N, classes), labels (N,) or label probabilities (N, classes)."""
        target = label.argmax(1) if label.ndim == 2 else label
        self.loss.update(loss.detach().float(), weight=len(target))
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
        scalars = {"loss": self.loss.compute(), "acc": hits.sum() / truths.sum().clamp(min=1)}
        scalars |= {name: values[seen].mean() for name, values in per_class.items()}
        return StageResult(scalars, per_class | {"images": truths}, counts)

    def reset(self) -> None:
        """Start a new epoch."""
        self.loss.reset()
        self.confusion.reset()
