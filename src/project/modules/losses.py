"""Losses. A custom loss is any `nn.Module` that maps (outputs, target) to the mean over the batch.

For labels and values it may also return the loss of each output, (N, outputs); those of unknown targets are then
masked. Losses of torch work as they are, e.g. `--model.loss HuberLoss`.
"""

import torch
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


class FocalLoss(nn.Module):
    """Focal loss of mutually exclusive classes: cross-entropy times (1 - p)^gamma, so that easy samples count less.

    Lin et al., Focal Loss for Dense Object Detection, 2017. For labels, use `SigmoidFocalLoss`.

    Args:
        gamma: Focusing parameter, at least 0; 0 is the cross-entropy.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, classes) and labels, int64 (N,) or class probabilities (N, classes)."""
        log_p = outputs.log_softmax(1)
        weighted = (1 - log_p.exp()) ** self.gamma * log_p
        if target.ndim == 1:
            return -weighted.gather(1, target[:, None]).sum() / max(1, len(outputs))
        return -(target * weighted).sum() / max(1, len(outputs))


class OrdinalLoss(nn.Module):
    """Cumulative loss of ordered classes, e.g. grades: a prediction costs more the further it is from the label.

    The mean over all k of the binary cross-entropy of "the class is at most k", whose probability is the cumulative sum
    of the class probabilities; the logarithmic form of the ranked probability score. Epstein, A Scoring System for
    Probability Forecasts of Ranked Categories, 1969. Outputs stay logits of a softmax over classes.
    """

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, classes) and labels, int64 (N,) or class probabilities (N, classes)."""
        log_p = outputs.log_softmax(1)
        at_most = log_p.logcumsumexp(1)[:, :-1]
        above = log_p.flip(1).logcumsumexp(1).flip(1)[:, 1:]
        label = F.one_hot(target, outputs.shape[1]) if target.ndim == 1 else target
        share = label.to(log_p).cumsum(1)[:, :-1]
        return -(share * at_most + (1 - share) * above).mean(1).sum() / max(1, len(outputs))


class SigmoidFocalLoss(nn.Module):
    """Focal loss of each label; Lin et al., Focal Loss for Dense Object Detection, 2017.

    Args:
        gamma: Focusing parameter, at least 0.
        alpha: Weight of present labels, and 1 - alpha of absent ones, in [0, 1]; negative for no weights.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each logit and label in [0, 1]: both and the result are float (N, labels)."""
        from torchvision.ops import sigmoid_focal_loss

        loss: Tensor = sigmoid_focal_loss(outputs, target, self.alpha, self.gamma)
        return loss


class AsymmetricLoss(nn.Module):
    """Focal loss of each label with a stronger focus on, and a margin for, absent labels, which are the majority.

    Ridnik et al., Asymmetric Loss For Multi-Label Classification, 2021; the defaults are theirs.

    Args:
        gamma_negative: Focusing parameter of absent labels.
        gamma_positive: Focusing parameter of present labels.
        margin: Probability that is subtracted for absent labels, in [0, 1).
    """

    def __init__(self, gamma_negative: float = 4.0, gamma_positive: float = 1.0, margin: float = 0.05) -> None:
        super().__init__()
        self.gamma_negative, self.gamma_positive, self.margin = gamma_negative, gamma_positive, margin

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each logit and label in [0, 1]: both and the result are float (N, labels)."""
        shifted = (outputs.sigmoid() - self.margin).clamp(min=0)
        present = outputs.sigmoid().neg().add(1) ** self.gamma_positive * F.logsigmoid(outputs)
        absent = shifted**self.gamma_negative * (1 - shifted).log()
        return -(target * present + (1 - target) * absent)


class MaskedLoss(nn.Module):
    """Mean of a loss over the outputs of a batch, to which unknown targets, NaN, contribute nothing.

    The sum is divided by all outputs, not by the known ones, so that it does not depend on how samples are distributed
    over batches and processes.

    Args:
        loss: Loss of (outputs, target), both (N, outputs), that returns the loss of each output or their mean.
        mean: Subtracted from the targets, float (outputs,).
        std: Divides them then, float (outputs,).
        label_smoothing: Amount by which labels are moved to 0.5, in [0, 1); applied in training only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, loss: nn.Module, mean: Tensor, std: Tensor, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if getattr(loss, "reduction", None) == "mean":  # losses of torch
            loss.reduction = "none"  # type: ignore[assignment]
        self.loss, self.label_smoothing = loss, label_smoothing
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of outputs and targets, float (N, outputs)."""
        known = ~target.isnan()
        target = torch.where(known, (target - self.mean) / self.std, 0)
        if self.training and self.label_smoothing:
            target = target.lerp(torch.full_like(target, 0.5), self.label_smoothing)
        loss: Tensor = self.loss(outputs, target)
        return torch.where(known, loss, 0).sum() / max(1, target.numel()) if loss.ndim else loss
