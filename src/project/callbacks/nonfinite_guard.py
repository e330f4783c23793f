"""Detection of non-finite losses and gradients."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from project.errors import UserError
from project.interface import Batch, data_of
from project.runs.checkpoints import LAST

SHOWN = 20
"""Maximum number of files listed in a message."""


class _Step(NamedTuple):
    """A recorded optimizer step, with its gradients until their norm is computed."""

    number: int
    epoch: int
    rows: Tensor
    loss: Tensor
    gradients: list[Tensor]
    norm: Tensor | None

    def values(self) -> Tensor:
        """Return loss and gradient norm, (2,)."""
        return torch.stack([self.loss, _norm(self.gradients) if self.norm is None else self.norm])


class NonFiniteGuard(L.Callback):
    """Callback that stops a run on a non-finite loss or gradient and never saves non-finite weights.

    With `stop` on a GPU, losses and gradient norms are checked every `log_every_n_steps` and before saving, so that no
    step synchronizes with the device. A single CPU process computes the gradient norm, which takes 1 % of a step, only
    if the next loss is non-finite. With `skip` the values are checked in every step.

    Args:
        nonfinite: `stop` raises an error with the step, the files of the batch and the gradient norm; `skip` leaves
            out the optimizer step, continues, and logs the number of skipped batches (`train/skipped_batches`).
    """

    def __init__(self, nonfinite: Literal["stop", "skip"] = "stop") -> None:
        self.nonfinite, self.skipped = nonfinite, 0
        self._steps: list[_Step] = []
        self._rows: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, *_: Any) -> None:
        """Record the rows of the batch and, with `skip`, the buffers such as running means, to restore them."""
        if self.nonfinite == "skip" and not self._losses:
            self._buffers = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]
        self._rows.append(batch.index)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Record the loss; if it is non-finite, check the gradients of the previous step first."""
        self._losses.append(loss.detach() * trainer.accumulate_grad_batches)
        if self._is_deferred(trainer, loss):
            if not loss.isfinite():
                self._check(trainer)
            self._steps = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Record the step and, if it is due, check the recorded steps."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        loss, rows = torch.stack(self._losses).float().mean(), torch.cat(self._rows)
        self._rows, self._losses = [], []
        if self._is_deferred(trainer, loss) and loss.isfinite():
            # Keeping the gradients costs nothing: they stay in memory until the next backward pass.
            self._steps = [_Step(trainer.global_step, trainer.current_epoch, rows, loss, gradients, None)]
            return
        self._steps.append(_Step(trainer.global_step, trainer.current_epoch, rows, loss, [], _norm(gradients)))
        due = loss.device.type == "cpu" or len(self._steps) >= trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.nonfinite == "stop" and due:
            self._check(trainer)
        elif self.nonfinite == "skip" and (bad := self._first_nonfinite(trainer)):
            self._skip(trainer, pl_module, bad)

    def _is_deferred(self, trainer: L.Trainer, loss: Tensor) -> bool:
        """Return True if gradients are checked one step later; several processes do not share the next loss."""
        return self.nonfinite == "stop" and loss.device.type == "cpu" and trainer.world_size == 1

    def _first_nonfinite(self, trainer: L.Trainer) -> _Step | None:
        """Return the first recorded step with a non-finite loss or gradient, and clear the records."""
        steps, self._steps = self._steps, []
        if not steps:
            return None
        values = torch.stack([step.values() for step in steps]).cpu()
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            values = values[:, :1]  # the gradient scaler handles infinite gradients, which are expected
        bad = (~values.isfinite()).any(1).tolist()
        return steps[bad.index(True)] if any(bad) else None

    def _skip(self, trainer: L.Trainer, pl_module: L.LightningModule, bad: _Step) -> None:
        for parameter in pl_module.parameters():
            parameter.grad = None  # optimizers skip parameters without gradient, including weight decay and momentum
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        self.skipped += 1
        description, files = _describe(trainer, bad)
        rank_zero_warn(f"skipped a batch: {description}; files: {', '.join(files)}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the remaining steps of the epoch; log the number of skipped batches so far."""
        self._check(trainer)
        if self.nonfinite == "skip":
            pl_module.log("train/skipped_batches", float(self.skipped))

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raise a UserError instead of saving non-finite weights."""
        self._check(trainer)
        for name, value in checkpoint["state_dict"].items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise UserError(
                    f"training diverged: {name} is not finite after step {trainer.global_step:,}, so this checkpoint is"
                    " not saved; earlier checkpoints are good. Train again with a smaller learning rate"
                )

    def _check(self, trainer: L.Trainer) -> None:
        if self.nonfinite == "stop" and (bad := self._first_nonfinite(trainer)):
            description, files = _describe(trainer, bad)
            last = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or ".") / LAST
            raise UserError(
                f"training diverged: {description}; the files of the batch are listed above. The last good checkpoint"
                f" is {last}: start a new run from it with a smaller learning rate (--model.init_from {last}), clip"
                " gradients (--trainer.gradient_clip_val 1) or skip such batches (--guard.nonfinite skip)",
                files,
            )


def _describe(trainer: L.Trainer, bad: _Step) -> tuple[str, list[str]]:
    """Return a description of a step and the files of its batch."""
    (loss, norm), data, rows = bad.values().tolist(), data_of(trainer), bad.rows.tolist()
    more = [f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    files = [str(data.folder / data.path(row)) for row in rows[:SHOWN]]
    return f"loss {loss:g}, gradient norm {norm:g} at step {bad.number:,} (epoch {bad.epoch + 1})", files + more


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = torch.nn.utils.get_total_norm(gradients)
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).float()
