"""The base classes of tasks and of their metrics."""

import warnings
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from project.errors import UserError
from project.interface import StageResult, Target


class LossMetric(Metric):
    """Mean loss over samples, exact for uneven batches and several processes.

    Subclasses override `count` and `compute` to add metrics. Add states with `self.add_state(NAME, zeros, "sum")` and
    keep them small: during training they are saved in every checkpoint.
    """

    full_state_update = False
    loss_sum: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros(()), "sum")
        self.add_state("samples", torch.zeros(()), "sum")

    def update(self, loss: Tensor, outputs: Tensor, target: Tensor, only_finite: bool = False) -> None:
        """Add a batch with its mean loss; with `only_finite`, a batch with a non-finite loss is ignored."""
        loss = loss.detach().float()
        # A tensor, as a Python bool would synchronize with the GPU.
        valid = loss.isfinite() if only_finite else torch.ones_like(loss, dtype=torch.bool)
        self.loss_sum = self.loss_sum + loss.where(valid, 0) * len(outputs)
        self.samples = self.samples + valid * len(outputs)
        self.count(outputs.detach(), target, valid)

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Update the states of a subclass; `valid`, a bool scalar, is False for a batch to be ignored."""

    def compute(self) -> StageResult:
        """Return the result since the last reset, over all processes."""
        return StageResult({"loss": self.loss_sum / self.samples}, int(self.samples))

    def sums(self) -> dict[str, Tensor]:
        """Return the states of this process by name."""
        return {name: getattr(self, name) for name in self._defaults}

    def resume(self, sums: dict[str, Tensor]) -> None:
        """Restore the states that `sums` returned."""
        for name, value in sums.items():
            setattr(self, name, value.to(self.device).clone())


class Task(nn.Module):
    """Base class of tasks: loss, predictions and metrics for one kind of target.

    A subclass must override `default_loss`. Override the rest as needed:

    * `predict`: activation that turns outputs into predictions, e.g. a softmax;
    * `headline`, `monitor`, `training_metric`, `evaluation_metric`, `test_metric`, `test_metrics`: metrics;
    * `build_loss` in place of `default_loss`: support for `model.label_smoothing` and `model.class_weights`;
    * `losses`, `example_target`, `wrap_loss`: checks and preparation of a loss chosen with `model.loss`;
    * `prepare_metric`, `metric_inputs`: preparation of the metrics in `model.metrics`;
    * `distillation_loss`: support for `model.teacher`;
    * `score_name`, `score`: one metric of any predictions, e.g. of a quantized model;
    * `calibrated`, `reset_calibration`: calibration, such as temperature scaling;
    * `sample_losses`: the loss of single samples;
    * `explained`, `target_text`, `predicted_text` and what follows them: attribution maps and ablation;
    * `sample_losses`, `headline_value`, `is_wrong`: attacks on samples and their evaluation;
    * `table`, `describe`, `figures`, `rank_samples`: results in the console, TensorBoard and the report.

    A `Target` names its task in `Target.task`; `model.task` overrides it.

    Args:
        target: The target of the data.
    """

    headline: ClassVar[tuple[str, str] | None] = None
    """Name and format of the metric that the console shows next to the loss, e.g. ("acc", ".2%")."""
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("val/loss", "min")
    """Metric that selects the best checkpoint by default, and whether lower or higher is better."""
    losses: ClassVar[tuple[str, ...]] = ()
    """Names of the losses of torch and of this project that fit; if empty, all do."""
    explained_columns: ClassVar[tuple[str, str, str]] = ("true", "value", "prediction")
    """Columns of explanations.csv: the target of a sample, the explained output, and the prediction for that output."""
    signed: ClassVar[bool] = True
    """Whether pixels that decrease an output matter as much as those that increase it, so that figures show both."""
    score_format: ClassVar[str] = ".4g"
    """Format of one prediction in the titles of figures."""
    score_name: ClassVar[str] = ""
    """Name of the metric of `score`; it has the format of `headline`. Empty if there is none."""
    sample: str = "image"
    """Singular noun for a sample, in tables and messages: `Input.kind`, set by the module."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target

    def default_loss(self) -> nn.Module:
        """Return the loss that is used if `model.loss` is not given."""
        raise NotImplementedError

    def build_loss(self, options: dict[str, Any]) -> nn.Module:
        """Return the default loss; raise if `options`, the loss options of `Classifier`, are set but not supported."""
        reject_loss_options(options, type(self).__name__)
        return self.default_loss()

    def use_loss(self, loss: nn.Module) -> nn.Module:
        """Return a custom loss, prepared for training.

        Raises:
            UserError: The loss is not one for this task, or fails.
        """
        name, example = type(loss).__name__, self.example_target()
        known = type(loss).__module__.startswith(("torch.", f"{__name__.partition('.')[0]}.modules.losses"))
        if known and self.losses and name not in self.losses:
            raise UserError(f"model.loss {name} is not for {self.target.kind}: use {', '.join(self.losses)}")
        prepared = self.wrap_loss(loss)
        if example is None:
            return prepared
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("error")  # shapes that are broadcast
                result = prepared(torch.zeros(len(example), self.target.outputs), example)
        except Exception as error:
            given = f"outputs {(len(example), self.target.outputs)} and a {str(example.dtype)[6:]} target"
            reason = str(error).partition("\n")[0]
            raise UserError(f"model.loss {name} fails for {given} of shape {(*example.shape,)}: {reason}") from error
        if not isinstance(result, Tensor) or result.ndim:
            raise UserError(f"model.loss {name} must return the mean over the batch, a scalar tensor")
        return prepared

    def example_target(self) -> Tensor | None:
        """Return the targets of two samples, with which a custom loss is tried; None to skip this."""
        return None

    def wrap_loss(self, loss: nn.Module) -> nn.Module:
        """Return a module of (outputs, target) as in `Batch` for a custom loss."""
        return loss

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, temperature: float) -> Tensor:
        """Return the mean loss of outputs against those of `model.teacher`, both float32 (N, outputs)."""
        raise UserError(f"model.teacher is not supported by {type(self).__name__}: leave it out")

    def calibrated(self, outputs: Tensor) -> Tensor:
        """Return calibrated outputs; used in evaluation and prediction, not in training."""
        return outputs

    def predict(self, outputs: Tensor) -> Tensor:
        """Return predictions, e.g. probabilities, (N, outputs), from calibrated outputs."""
        return outputs

    def score(self, predictions: Tensor, target: Tensor) -> float:
        """Return the metric `headline` of predictions, (N, outputs), and targets as in `Batch`."""
        raise NotImplementedError

    def reset_calibration(self) -> None:
        """Reset calibration and thresholds; called when training starts or resumes, as the weights will change."""
        self.target = self.target.without_thresholds()

    def sample_losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the default loss of each sample, float (N,), NaN if its target is unknown; it is differentiable."""
        loss = self.default_loss().to(outputs.device)
        return torch.stack([loss(*one) for one in zip(outputs.split(1), target.split(1), strict=True)])

    def explained(self, predictions: Tensor) -> list[list[int]]:
        """Return the outputs to attribute for each sample, the most important one first; by default all."""
        return [list(range(predictions.shape[1]))] * len(predictions)

    def attribution_scores(self, outputs: Tensor) -> Tensor:
        """Return the scores that the faithfulness of attribution maps is measured with, float (N, outputs)."""
        return self.predict(outputs)

    def ablation_metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Return the metrics whose change ablation reports, the most important one first."""
        if self.headline and self.score_name:
            return {self.headline[0]: self.score(self.predict(outputs), target)}
        return {"loss": float(self.sample_losses(outputs, target).nanmean())}

    def target_text(self, target: Tensor) -> str:
        """Return the target of one sample as text, empty if it is unknown."""
        return _join(self.target.names, target)

    def predicted_text(self, predictions: Tensor) -> str:
        """Return the prediction for one sample, float (outputs,), as text."""
        return _join(self.target.names, predictions)

    def describe_mistake(self, predictions: Tensor, target: Tensor) -> tuple[int, str, str]:
        """Return the output of one sample to attribute in error analysis, the title of the sample and that of the map.

        Args:
            predictions: Predictions for the sample, float (outputs,).
            target: Target of the sample.
        """
        truth, predicted = self.target_text(target), self.predicted_text(predictions)
        return 0, f"{self.explained_columns[0]} {truth}", f"predicted {predicted}"

    def rank_mistakes(self, predictions: Tensor, target: Tensor) -> Tensor:
        """Return scores by which error analysis selects the worst mistakes, float (N,); -inf excludes a sample."""
        return self.rank_samples(predictions, target, torch.zeros(len(target)), 0)["mistakes"]

    def headline_value(self, outputs: Tensor, target: Tensor) -> float:
        """Return the metric `headline` of these samples; the mean loss of a task without one."""
        loss = self.sample_losses(outputs, target).nanmean()
        if self.headline is None:
            return float(loss)
        metric = self.training_metric().to(outputs.device)
        metric.update(loss, outputs, target)
        return float(metric.compute().scalars[self.headline[0]])

    def is_wrong(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return whether each prediction cannot get worse, bool (N,): an adversarial attack leaves it out."""
        return torch.zeros(len(outputs), dtype=torch.bool, device=outputs.device)

    def training_metric(self) -> LossMetric:
        """Return the metric of training epochs."""
        return LossMetric()

    def evaluation_metric(self) -> LossMetric:
        """Return the metric of validation; by default that of training."""
        return self.training_metric()

    def test_metric(self) -> LossMetric:
        """Return the metric of a test; by default that of validation."""
        return self.evaluation_metric()

    def test_metrics(self) -> dict[str, Metric]:
        """Return additional test metrics by name; they are updated with `metric_inputs`."""
        return {}

    def prepare_metric(self, metric: Metric) -> Metric:
        """Return a metric of `model.metrics`, set up for unknown targets."""
        return metric

    def metric_inputs(self, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions and targets of a batch as torchmetrics expects them."""
        return predictions, target

    def rank_samples(self, predictions: Tensor, target: Tensor, index: Tensor, count: int) -> dict[str, Tensor]:
        """Return scores by which test samples are selected for the report, float (N,), by kind of sample.

        The samples with the highest scores are shown; -inf excludes a sample. The report shows `count` samples of the
        kinds `mistakes` and `uncertain`, and one sample of each kind `sample CLASS_INDEX`, for up to `count` classes.
        """
        return {}

    def table(self, result: StageResult) -> list[list[str]]:
        """Return a table for the console, with a header and a summary row; empty for no table."""
        return []

    def describe(self, scalars: dict[str, float]) -> str:
        """Return the metrics of an evaluation in one line."""
        return ", ".join(f"{name} {value:.4f}" for name, value in scalars.items())

    def figures(self, result: StageResult) -> dict[str, Any]:
        """Return matplotlib figures by name."""
        return {}


def _join(names: list[str], values: Tensor) -> str:
    """Return known values as text, with their names if there are several."""
    pairs = [(name, value) for name, value in zip(names, values.reshape(-1).tolist(), strict=True) if value == value]
    return ", ".join(f"{value:.4g}" if len(names) == 1 else f"{name} {value:.4g}" for name, value in pairs)


def reject_loss_options(options: dict[str, Any], owner: str) -> None:
    """Raise if an option of the default classification loss is set, as `owner` does not support them."""
    if used := [name for name, value in options.items() if value]:
        raise UserError(f"model.{used[0]} is not supported by {owner}: leave it out")
