"""Losses. One of your own is any `nn.Module` of (outputs, target) that returns the mean over the batch."""

import torch.nn.functional as F
from torch import Tensor, nn


class CrossEntropy(nn.Module):
    """Cross-entropy of logits, divided by the number of samples.

    Not by the sum of their weights, as torch has it: batches and processes then add up to the whole.

    Args:
        label_smoothing: Share of the label spread evenly over all classes in training, in [0, 1).
        weight: Weight of each class, float (classes,).
    """

    weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, weight: Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Logits (N, classes) and labels int64 (N,), or label probabilities (N, classes), to a scalar."""
        smoothing = self.label_smoothing if self.training else 0.0
        total = F.cross_entropy(outputs, target, weight=self.weight, label_smoothing=smoothing, reduction="sum")
        return total / max(1, len(outputs))  # by chance, private training may draw no sample
