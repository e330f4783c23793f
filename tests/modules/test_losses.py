"""Losses against torch, torchvision and the formulas of the papers; unknown targets; losses that do not fit."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from project.errors import UserError
from project.interface import ClassTarget, MultilabelTarget, ValueTarget
from project.modules.losses import (
    AsymmetricLoss,
    CrossEntropy,
    FocalLoss,
    MaskedLoss,
    OrdinalLoss,
    SigmoidFocalLoss,
)
from project.modules.tasks import Multiclass, Multilabel, Regression, Task

OPTIONS = {"label_smoothing": 0.0, "class_weights": None}
CLASSES = Multiclass(ClassTarget(["a", "b", "c"], [1, 1, 1]))
LABELS = Multilabel(MultilabelTarget(["a", "b", "c"], [10, 50, 40], [100, 100, 80]))
VALUES = Regression(ValueTarget(["x", "y"], [10.0, -1.0], [2.0, 0.5]))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_losses_of_classes() -> None:
    outputs, label = torch.randn(20, 3), torch.randint(3, (20,))
    soft = F.one_hot(label, 3).float()
    for loss in (CrossEntropy(), FocalLoss(), FocalLoss(0.5), OrdinalLoss()):
        assert torch.allclose(loss(outputs, label), loss(outputs, soft)), "labels and one-hot probabilities agree"
    assert torch.allclose(FocalLoss(0)(outputs, label), F.cross_entropy(outputs, label))
    p = outputs.softmax(1)[torch.arange(20), label]
    assert torch.allclose(FocalLoss(2)(outputs, label), (-((1 - p) ** 2) * p.log()).mean())
    at_most = outputs.softmax(1).cumsum(1)[:, :2]
    below = (label[:, None] <= torch.arange(2)).float()
    assert torch.allclose(OrdinalLoss()(outputs, label), F.binary_cross_entropy(at_most, below), atol=1e-6)
    far, near = torch.tensor([[9.0, 0, 0]]), torch.tensor([[0, 9.0, 0]])
    assert OrdinalLoss()(far, torch.tensor([2])) > OrdinalLoss()(near, torch.tensor([2])) + 1


def test_losses_of_labels() -> None:
    outputs, target = torch.randn(20, 3), torch.randint(2, (20, 3)).float()
    assert torch.allclose(SigmoidFocalLoss()(outputs, target), sigmoid_focal_loss(outputs, target))
    binary = F.binary_cross_entropy_with_logits(outputs, target, reduction="none")
    assert torch.allclose(AsymmetricLoss(0, 0, 0)(outputs, target), binary, atol=1e-5)
    p = outputs.sigmoid()
    expected = torch.where(
        target == 1, -(1 - p) * p.log(), -((p - 0.05).clamp(0) ** 4) * (1 - (p - 0.05).clamp(0)).log()
    )
    assert torch.allclose(AsymmetricLoss()(outputs, target), expected, atol=1e-6)
    weighted = LABELS.build_loss(OPTIONS | {"class_weights": "balanced"})(outputs, target)
    positive = torch.tensor([90 / 10, 50 / 50, 40 / 40])
    assert torch.allclose(weighted, F.binary_cross_entropy_with_logits(outputs, target, pos_weight=positive))
    smoothed = LABELS.build_loss(OPTIONS | {"label_smoothing": 0.2})
    assert torch.allclose(smoothed(outputs, target), F.binary_cross_entropy_with_logits(outputs, target * 0.8 + 0.1))
    assert torch.allclose(smoothed.eval()(outputs, target), binary.mean()), "in training only"


@pytest.mark.parametrize("extreme", [-200.0, 200.0])
def test_losses_and_gradients_are_finite_for_extreme_outputs(extreme: float) -> None:
    label, labels = torch.tensor([0, 2]), torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    losses: list[tuple[nn.Module, Tensor]] = [(loss, label) for loss in (FocalLoss(), OrdinalLoss())]
    losses += [(loss, labels) for loss in (AsymmetricLoss(), SigmoidFocalLoss())]
    for loss, target in losses:
        outputs = torch.full((2, 3), extreme).index_fill_(1, torch.tensor([1]), 0).requires_grad_()
        loss(outputs, target).sum().backward()
        assert outputs.grad is not None and outputs.grad.isfinite().all(), type(loss).__name__


def test_unknown_targets_count_for_nothing() -> None:
    outputs, target = torch.randn(4, 2, requires_grad=True), torch.tensor([[12.0, -1], [9, 0], [10, -2], [8, -1]])
    unknown = target.clone()
    unknown[1, 0] = torch.nan
    for loss in (nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(delta=0.5)):
        whole = VALUES.use_loss(loss)(outputs, target)
        standardized = (target - torch.tensor([10.0, -1])) / torch.tensor([2.0, 0.5])
        each = type(loss)(**({"delta": 0.5} if isinstance(loss, nn.HuberLoss) else {}), reduction="none")
        assert torch.allclose(whole, each(outputs, standardized).mean())
        masked = VALUES.use_loss(loss)(outputs, unknown)
        assert torch.allclose(whole - masked, each(outputs, standardized)[1, 0] / 8)
        (gradient,) = torch.autograd.grad(masked, outputs)
        assert gradient[1, 0] == 0 and gradient.isfinite().all() and (gradient != 0).sum() == 7
    assert float(MaskedLoss(nn.MSELoss(), torch.zeros(2), torch.ones(2))(outputs, torch.full((4, 2), torch.nan))) == 0


@pytest.mark.parametrize(
    ("task", "loss", "message"),
    [
        (CLASSES, nn.MSELoss(), "model.loss MSELoss is not for classes: use CrossEntropy, FocalLoss, OrdinalLoss"),
        (CLASSES, AsymmetricLoss(), "model.loss AsymmetricLoss is not for classes"),
        (LABELS, CrossEntropy(), "model.loss CrossEntropy is not for labels: use BCEWithLogitsLoss"),
        (VALUES, nn.BCEWithLogitsLoss(), "model.loss BCEWithLogitsLoss is not for values: use MSELoss"),
        (CLASSES, nn.CrossEntropyLoss(reduction="none"), "must return the mean over the batch, a scalar tensor"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(task: Task, loss: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task.use_loss(loss)


class Wrong(nn.Module):
    """A loss for another shape of targets."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Fail for class labels."""
        return F.mse_loss(outputs, target.float())


def test_a_custom_loss_is_tried_first() -> None:
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=r"Wrong fails for outputs \(2, 3\) and a int64 target of shape \(2,\)"):
        CLASSES.use_loss(Wrong())
    assert (torch.get_rng_state() == state).all()
    assert isinstance(VALUES.use_loss(Wrong()), MaskedLoss)
