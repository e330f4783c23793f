"""Metrics of the epochs of training, validation and test."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from project.errors import UserError
from project.interface import Split, StageResult
from project.modules.tasks import LossMetric, Task


class StageMetrics(nn.Module):
    """The metric of the task for each stage, and additional metrics for val and test.

    Args:
        task: The task.
        extra: Additional metrics, updated with (predictions, target) and named by their classes.

    Attributes:
        extra: Additional metrics by stage (`val_metrics`, `test_metrics`) and name.
        results: Result of the last completed epoch of each stage.

    Raises:
        UserError: Two metrics have the same class.
    """

    def __init__(self, task: Task, extra: Sequence[Metric]) -> None:
        super().__init__()
        names = [type(metric).__name__ for metric in extra]
        if len(set(names)) < len(names):
            raise UserError(f"model.metrics must be of different classes, got {', '.join(names)}")
        by_name = dict(zip(names, extra, strict=True))
        metrics = {"train": {}, "val": by_name, "test": {**task.test_metrics(), **by_name}}
        self.extra: dict[str, dict[str, Metric]] = nn.ModuleDict(  # type: ignore[assignment]
            {f"{stage}_metrics": nn.ModuleDict({k: m.clone() for k, m in ms.items()}) for stage, ms in metrics.items()}
        )
        self.main = nn.ModuleDict({"train_sums": task.training_metric()})
        self._create = {"val": task.evaluation_metric, "test": task.test_metric}
        self._inputs = task.metric_inputs
        self.results: dict[Split, StageResult] = {}

    def of(self, stage: Split, device: torch.device | str = "cpu") -> LossMetric:
        """Return the task's metric of a stage; those of evaluation are created on first use."""
        if f"{stage}_sums" not in self.main:
            self.main[f"{stage}_sums"] = self._create[stage]().to(device)
        return cast(LossMetric, self.main[f"{stage}_sums"])

    def update(self, stage: Split, loss: Tensor, outputs: Tensor, target: Tensor) -> None:
        """Update the task's metric with a batch; in training, a non-finite loss stops the run or is skipped."""
        self.of(stage, outputs.device).update(loss, outputs, target, only_finite=stage == "train")

    def update_extra(self, stage: Split, predictions: Tensor, target: Tensor) -> None:
        """Update the additional metrics with a batch."""
        if metrics := self.extra[f"{stage}_metrics"]:
            inputs = self._inputs(predictions, target)
            for metric in metrics.values():
                metric.update(*inputs)

    def finish(self, stage: Split, device: torch.device | str) -> StageResult:
        """Return the result of an epoch over all processes, and reset the metrics."""
        result = self.of(stage, device).compute()
        self.of(stage).reset()
        for name, metric in self.extra[f"{stage}_metrics"].items():
            result.scalars[name] = metric.compute()
            metric.reset()
        self.results[stage] = result
        return result
