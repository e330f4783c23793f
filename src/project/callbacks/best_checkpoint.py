"""Callback that saves the best checkpoints."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from project.interface import module_of

LOSS = "val/loss"


class BestCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that, of checkpoints with the same value of `monitor`, prefers the one with the lower `val/loss`.

    With a small val split, many epochs have the same accuracy. Lightning's callback keeps the first of them, in which
    the network may be far from trained. A NaN loss counts as infinite.

    Args:
        monitor: Logged metric by which checkpoints are compared; `auto` takes that of the task: val/acc for classes,
            val/mAP for labels, val/loss for values.
        mode: Whether the lowest or the highest value is the best; `auto` knows for losses, errors and the metrics of
            `model.metrics`.
        kwargs: Arguments of ModelCheckpoint.
    """

    losses: Mapping[str, float] = {}
    """`val/loss` of the checkpoints in `best_k_models`, by path; replaced, never changed."""

    def __init__(
        self, *, monitor: str | None = "auto", mode: Literal["auto", "min", "max"] = "auto", **kwargs: Any
    ) -> None:
        super().__init__(monitor=monitor, mode="max" if mode == "auto" else mode, **kwargs)
        self._mode_is_open = mode == "auto"

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Choose metric and mode by the task, before the state of an earlier run is restored."""
        if stage == "fit":
            pl_module.setup(stage)  # the task is known then
            task, extra = module_of(trainer).task, module_of(trainer).metrics.extra["val_metrics"]
            name, mode = task.monitor
            if self.monitor == "auto":
                self.monitor = name
            if self.monitor is not None and self._mode_is_open:
                self.mode = mode if self.monitor == name else best_is(self.monitor, extra)
                self.kth_value = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)
        super().setup(trainer, pl_module, stage)

    @override
    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        if super().check_monitor_top_k(trainer, current):
            return True
        if current is None or LOSS not in trainer.callback_metrics:
            return False
        worst = self.kth_best_model_path
        better = bool(current == self.best_k_models[worst]) and _loss(trainer) < self.losses.get(worst, math.inf)
        return trainer.strategy.reduce_boolean_decision(better)

    @override
    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        """Rank the checkpoints by value and loss before saving one, as it contains the state of this callback."""
        new = {filepath: _loss(trainer)}
        self.losses = {path: (new if path in new else self.losses).get(path, math.inf) for path in self.best_k_models}
        sign = 1 if self.mode == "max" else -1
        scores = {path: sign * float(score) for path, score in self.best_k_models.items()}
        ranked = sorted(scores, key=lambda path: (-scores[path], self.losses[path]))
        if ranked:
            self.best_model_path, self.best_model_score = ranked[0], self.best_k_models[ranked[0]]
        if self.kth_best_model_path:  # not with fewer checkpoints than `save_top_k`
            self.kth_best_model_path, self.kth_value = ranked[-1], self.best_k_models[ranked[-1]]
        super()._save_checkpoint(trainer, filepath)

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"losses": dict(self.losses)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.losses = {path: state_dict.get("losses", {}).get(path, math.inf) for path in self.best_k_models}


def best_is(name: str, metrics: Mapping[str, Metric]) -> Literal["min", "max"]:
    """Return whether the lowest or the highest value of a logged metric is the best.

    Args:
        name: Name of the metric, e.g. val/loss.
        metrics: Metrics of `model.metrics` by name.
    """
    last = name.rpartition("/")[2]
    if last in metrics and (higher := metrics[last].higher_is_better) is not None:
        return "max" if higher else "min"
    return "min" if last.endswith(("loss", "error")) or last in ("mae", "rmse", "brier") else "max"


def _loss(trainer: L.Trainer) -> float:
    loss = float(trainer.callback_metrics.get(LOSS, torch.inf))
    return math.inf if math.isnan(loss) else loss
