"""What every task has."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from project.errors import UserError
from project.interface import StageResult, Target


class LossMetric(Metric):
    """The mean loss, exact over uneven batches and several processes; subclasses count more.

    States are sums, small ones: those of an unfinished training epoch are part of every checkpoint.
    """

    full_state_update = False
    loss_sum: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros(()), "sum")
        self.add_state("samples", torch.zeros(()), "sum")

    def update(self, loss: Tensor, outputs: Tensor, target: Tensor, only_finite: bool = False) -> None:
        """Count a batch by its mean loss; with `only_finite`, unless that is not (on a GPU nothing waits to know)."""
        loss = loss.detach().float()
        counts = loss.isfinite() if only_finite else torch.ones_like(loss, dtype=torch.bool)
        self.loss_sum = self.loss_sum + loss.where(counts, 0) * len(outputs)
        self.samples = self.samples + counts * len(outputs)
        self.count(outputs.detach(), target, counts)

    def count(self, outputs: Tensor, target: Tensor, counts: Tensor) -> None:
        """Count what else is wanted of a batch; `counts`, a bool scalar, says whether it counts."""

    def compute(self) -> StageResult:
        """Return what was counted since the last reset, over all processes."""
        return StageResult({"loss": self.loss_sum / self.samples}, int(self.samples))

    def sums(self) -> dict[str, Tensor]:
        """Return the states of this process."""
        return {name: getattr(self, name) for name in self._defaults}

    def resume(self, sums: dict[str, Tensor]) -> None:
        """Go on from what `sums` returned."""
        for name, value in sums.items():
            setattr(self, name, value.to(self.device).clone())


class Task(nn.Module):
    """What is predicted, built with the data's target; one of your own overrides `default_loss` and what differs."""

    headline: ClassVar[tuple[str, str] | None] = None
    """Name and format of the metric that the console shows beside the loss."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target

    def default_loss(self) -> nn.Module:
        """Return the loss that is used unless `model.loss` names another."""
        raise NotImplementedError

    def build_loss(self, options: dict[str, Any]) -> nn.Module:
        """Return the default loss with the options of `Classifier` that are about it, which not every loss has."""
        reject_loss_options(options, type(self).__name__)
        return self.default_loss()

    def calibrated(self, outputs: Tensor) -> Tensor:
        """Return outputs as they count outside training."""
        return outputs

    def predict(self, outputs: Tensor) -> Tensor:
        """Return what tables, exported files and the server give, (N, outputs), of calibrated outputs."""
        return outputs

    def reset_calibration(self) -> None:
        """Forget what holds for the weights as they were, as training goes on."""

    def training_metric(self) -> LossMetric:
        """Return what is counted in training."""
        return LossMetric()

    def evaluation_metric(self) -> LossMetric:
        """Return what is counted in validation and test."""
        return self.training_metric()

    def test_metrics(self) -> dict[str, Metric]:
        """Return metrics of a test, by name; they are updated with (predictions, target)."""
        return {}

    def rank_samples(self, predictions: Tensor, target: Tensor, index: Tensor, count: int) -> dict[str, Tensor]:
        """Return how much each tested sample is worth a look, float (N,), -inf for not at all, by kind.

        Kinds that a report knows are `mistakes`, `uncertain` and, for one a class, `sample CLASS`; `count` are shown of
        the first two, and so many classes sampled.
        """
        return {}

    def table(self, result: StageResult) -> list[list[str]]:
        """Return a table of an evaluation, the header first and a summary last; empty for none."""
        return []

    def describe(self, scalars: dict[str, float]) -> str:
        """Return the result of an evaluation in one line."""
        return ", ".join(f"{name} {value:.4f}" for name, value in scalars.items())

    def figures(self, result: StageResult) -> dict[str, Any]:
        """Return matplotlib figures of an evaluation, by name."""
        return {}


def reject_loss_options(options: dict[str, Any], what: str) -> None:
    """Refuse options of the classifier that are for its default loss on classes."""
    if given := [name for name, value in options.items() if value]:
        raise UserError(f"model.{given[0]} is not for {what}: leave it out")
