"""Losses. A custom loss is any `nn.Module` that maps (outputs, target) to the mean over the batch."""

import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.Module):
    """Cross-entropy loss, divided by the number of samples.

    `torch.nn.CrossEntropyLoss` divides by the sum of the class weights instead, so that its mean depends on how samples
    are distributed over batches and processes.

    Args:
        label_smoothing: Amount of label smoothing, in [0, 1); applied in training only.
        weight: Weight of each class, float (classes,).
    """

    weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, weight: Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, classes) and labels, int64 (N,) or class probabilities (N, classes)."""
        smoothing = self.label_smoothing if self.training else 0.0
        total = F.cross_entropy(outputs, target, weight=self.weight, label_smoothing=smoothing, reduction="sum")
        return total / max(1, len(outputs))  # Poisson sampling in private training may give an empty batch
