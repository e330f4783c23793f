"""Watching for losses and gradients that are not finite."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from project.errors import UserError
from project.interface import Batch, data_of
from project.runs.checkpoints import LAST

SHOWN = 20
"""Files of a batch that a message names."""


class _Step(NamedTuple):
    """What was noted of an optimizer step; its gradients until their norm is known."""

    number: int
    epoch: int
    rows: Tensor
    loss: Tensor
    gradients: list[Tensor]
    norm: Tensor | None

    def values(self) -> Tensor:
        """Loss and gradient norm."""
        return torch.stack([self.loss, _norm(self.gradients) if self.norm is None else self.norm])


class NonFiniteGuard(L.Callback):
    """Stops a run whose loss or gradient is not finite, and keeps such weights out of every checkpoint.

    On a GPU the figures are fetched every `log_every_n_steps` and before a checkpoint is written, so that no step
    waits for the device; the run then stops that much later. With `skip` each step waits, as the optimizer has to. A
    single process on a CPU looks at gradients once the next loss is not finite: it would take a hundredth of a step.

    Args:
        nonfinite: `stop` ends the run, naming step, files and gradient norm; `skip` leaves the weights as they are,
            goes on, and counts (`train/skipped_batches`).
    """

    def __init__(self, nonfinite: Literal["stop", "skip"] = "stop") -> None:
        self.nonfinite, self.skipped = nonfinite, 0
        self._steps: list[_Step] = []
        self._rows: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        """How many were skipped."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """How many were skipped before."""
        self.skipped = state_dict["skipped"]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, *_: Any) -> None:
        """Note the batch; before one that may be skipped, also running means, which it would spoil."""
        if self.nonfinite == "skip" and not self._losses:
            self._buffers = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]
        self._rows.append(batch.index)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Note the loss; one that is not finite may be due to the step before."""
        self._losses.append(loss.detach() * trainer.accumulate_grad_batches)
        if self._waits(trainer, loss):
            if not loss.isfinite():
                self._judge_or_stop(trainer)
            self._steps = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Note the gradient; judge at once where that costs nothing, or where it must be."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        loss, rows = torch.stack(self._losses).float().mean(), torch.cat(self._rows)
        self._rows, self._losses = [], []
        if self._waits(trainer, loss) and loss.isfinite():
            # Until the next backward pass they are in memory anyway.
            self._steps = [_Step(trainer.global_step, trainer.current_epoch, rows, loss, gradients, None)]
            return
        self._steps.append(_Step(trainer.global_step, trainer.current_epoch, rows, loss, [], _norm(gradients)))
        due = loss.device.type == "cpu" or len(self._steps) >= trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.nonfinite == "stop" and due:
            self._judge_or_stop(trainer)
        elif self.nonfinite == "skip" and (bad := self._judge(trainer)):
            self._skip(trainer, pl_module, bad)

    def _waits(self, trainer: L.Trainer, loss: Tensor) -> bool:
        """Whether gradients are judged a step later. Other processes would not know of this one's next loss."""
        return self.nonfinite == "stop" and loss.device.type == "cpu" and trainer.world_size == 1

    def _judge(self, trainer: L.Trainer) -> _Step | None:
        """The first step noted since the last time that is not finite."""
        steps, self._steps = self._steps, []
        if not steps:
            return None
        figures = torch.stack([step.values() for step in steps]).cpu()
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            figures = figures[:, :1]  # of infinite gradients the scaler takes care, and they are no fault
        bad = (~figures.isfinite()).any(1).tolist()
        return steps[bad.index(True)] if any(bad) else None

    def _skip(self, trainer: L.Trainer, pl_module: L.LightningModule, bad: _Step) -> None:
        for parameter in pl_module.parameters():
            parameter.grad = None  # an optimizer passes over what has no gradient: no decay and no momentum either
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        self.skipped += 1
        what, files = _describe(trainer, bad)
        rank_zero_warn(f"skipped a batch: {what}; its files: {', '.join(files)}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Judge the rest of the epoch; log how many batches were skipped so far."""
        self._judge_or_stop(trainer)
        if self.nonfinite == "skip":
            pl_module.log("train/skipped_batches", float(self.skipped))

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep a checkpoint from being written with weights that are not finite."""
        self._judge_or_stop(trainer)
        for name, value in checkpoint["state_dict"].items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise UserError(
                    f"training diverged: {name} is not finite after step {trainer.global_step:,}; this checkpoint is"
                    " not written, those before it are good: start anew with a smaller learning rate"
                )

    def _judge_or_stop(self, trainer: L.Trainer) -> None:
        if self.nonfinite == "stop" and (bad := self._judge(trainer)):
            what, files = _describe(trainer, bad)
            last = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or ".") / LAST
            raise UserError(
                f"training diverged: {what}; the files of that batch are listed above. The last good checkpoint is"
                f" {last}: start anew from it with a smaller learning rate (--model.init_from {last}), clip gradients"
                " (--trainer.gradient_clip_val 1), or go on without such batches (--guard.nonfinite skip)",
                files,
            )


def _describe(trainer: L.Trainer, bad: _Step) -> tuple[str, list[str]]:
    """Say what a step came to, and name the files of its batch."""
    (loss, norm), data, rows = bad.values().tolist(), data_of(trainer), bad.rows.tolist()
    more = [f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    files = [str(data.folder / data.path(row)) for row in rows[:SHOWN]]
    return f"loss {loss:g}, gradient norm {norm:g} at step {bad.number:,} (epoch {bad.epoch + 1})", files + more


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = torch.nn.utils.get_total_norm(gradients)
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).float()
