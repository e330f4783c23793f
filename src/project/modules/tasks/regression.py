"""Regression of one or several values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from project.interface import StageResult, Target, ValueTarget
from project.modules.losses import MaskedLoss
from project.modules.tasks.figures import scatter_figure
from project.modules.tasks.scores import ScoreMetric, known_mean, nanmean
from project.modules.tasks.task import LossMetric, Task
from project.runs.statistics import value_metrics

NAMES = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "spearman": "Spearman"}


class Regression(Task):
    """Regression with the mean squared error of standardized values.

    The network predicts values standardized by the mean and standard deviation of the training values; predictions and
    metrics are in the units of the data. Values that are unknown, NaN, contribute to neither loss nor metrics.
    """

    headline = ("mae", ".4g")
    score_name = "MAE"
    losses = ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss")
    target: ValueTarget
    mean: Tensor
    std: Tensor

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.register_buffer("mean", torch.tensor(self.target.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.target.std), persistent=False)

    def default_loss(self) -> nn.Module:
        """Return the mean squared error."""
        return self.wrap_loss(nn.MSELoss())

    def example_target(self) -> Tensor:
        """Return the mean of each value, twice."""
        return self.mean.expand(2, self.target.outputs)

    def wrap_loss(self, loss: nn.Module) -> nn.Module:
        """Return the loss of standardized values, with unknown ones masked."""
        return MaskedLoss(loss, self.mean.clone(), self.std.clone())

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the values in the units of the data."""
        return outputs * self.std + self.mean

    def score(self, predictions: Tensor, target: Tensor) -> float:
        """Return the mean absolute error, averaged over values."""
        return float(nanmean((predictions - target).abs().nanmean(0)))

    def sample_losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of the known standardized values of each sample, float (N,)."""
        known = ~target.isnan()
        error = (self.predict(outputs) - target.where(known, 0)) / self.std
        return known_mean(error.square(), known)

    def attribution_scores(self, outputs: Tensor) -> Tensor:
        """Return the standardized values, so that values of different units have a common scale."""
        return (self.predict(outputs) - self.mean) / self.std

    def describe_mistake(self, predictions: Tensor, target: Tensor) -> tuple[int, str, str]:
        """Return the value with the largest standardized error, and titles with its true and predicted value."""
        error = (predictions - target).abs() / self.std.to(predictions.device)
        worst = int(error.nan_to_num(-1).argmax())
        name = self.target.names[worst]
        return worst, f"true {name} {float(target[worst]):.4g}", f"predicted {name} {float(predictions[worst]):.4g}"

    def training_metric(self) -> LossMetric:
        """Return the sum of the absolute errors."""
        return ErrorSums(self.predict, self.target.outputs)

    def evaluation_metric(self) -> LossMetric:
        """Return the predictions of all samples."""
        return ValueScores(self.predict)

    def metric_inputs(self, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions and values of the samples whose values are all known."""
        known = ~target.isnan().any(1)
        return predictions[known], target[known]

    def rank_samples(self, predictions: Tensor, target: Tensor, index: Tensor, count: int) -> dict[str, Tensor]:
        """Rank the samples with the largest standardized errors, and samples from the lowest to the highest value."""
        error = ((predictions - target).abs() / self.std.cpu()).nan_to_num(-torch.inf).max(1).values.double()
        place = ((target[:, 0] - self.mean[0].cpu()) / self.std[0].cpu()).double()
        near = {f"sample {i}": -(place - goal).abs() for i, goal in enumerate(torch.linspace(-2, 2, count).tolist())}
        return {"mistakes": error, **{kind: score.nan_to_num(-torch.inf) for kind, score in near.items()}}

    def table(self, result: StageResult) -> list[list[str]]:
        """Return the metrics of each value, and their mean; empty for one value, which `describe` shows."""
        names = self.target.value_names
        if len(names) == 1:
            return []
        rows = [["value", *NAMES.values(), "samples"]]
        for i, name in enumerate(names):
            rows.append([name, *(f"{float(result.details[key][i]):.4g}" for key in NAMES)])
            rows[-1].append(f"{int(result.details['known'][i]):,}")
        return [*rows, ["mean", *(f"{float(result.scalars[key]):.4g}" for key in NAMES), f"{result.samples:,}"]]

    def describe(self, scalars: dict[str, float]) -> str:
        """Return all metrics."""
        return ", ".join(f"{NAMES.get(name, name)} {value:.4g}" for name, value in scalars.items())

    def figures(self, result: StageResult) -> dict[str, Any]:
        """Return predicted against true values."""
        details = result.details
        return {"predictions": scatter_figure(details["predictions"], details["truth"], self.target.value_names)}


class ErrorSums(LossMetric):
    """Loss and mean absolute error, averaged over values.

    Args:
        predict: Function from outputs to values in the units of the data.
        values: Number of values.
    """

    errors: Tensor
    known: Tensor

    def __init__(self, predict: Callable[[Tensor], Tensor], values: int) -> None:
        super().__init__()
        self.predict = predict
        self.add_state("errors", torch.zeros(values), "sum")
        self.add_state("known", torch.zeros(values, dtype=torch.int64), "sum")

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Add the absolute errors of known values."""
        known = ~target.isnan() & valid
        error = (self.predict(outputs) - target).abs()
        self.errors = self.errors + torch.where(known, error, 0).sum(0)
        self.known = self.known + known.sum(0)

    def compute(self) -> StageResult:
        """Return the metrics."""
        scalars = {"loss": self.loss_sum / self.samples, "mae": nanmean(self.errors / self.known)}
        return StageResult(scalars, int(self.samples))


class ValueScores(ScoreMetric):
    """Loss, MAE, RMSE, R2 and Spearman's rank correlation per value, and their means over values.

    Args:
        predict: Function from outputs to values in the units of the data.
    """

    def __init__(self, predict: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.predict = predict
        self.keep_scores()

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Keep the values of a batch."""
        super().count(self.predict(outputs), target, valid)

    def compute(self) -> StageResult:
        """Return the metrics; those of a value with fewer than two known samples are NaN."""
        predictions, truth = (x.cpu() for x in self.gathered())
        arrays = value_metrics(predictions.numpy(), truth.numpy())
        found = {name: torch.from_numpy(values) for name, values in arrays.items()}
        scalars = {"loss": self.loss_sum / self.samples, **{name: nanmean(found[name]) for name in NAMES}}
        return StageResult(scalars, int(self.samples), {**found, "predictions": predictions, "truth": truth})
