"""Callback that saves last.ckpt for exact resuming, also when a signal stops the run."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from torch import Tensor
from typing_extensions import override

from project.callbacks.describe import python_command
from project.callbacks.signals import Signals
from project.errors import Interrupted, UserError
from project.files import sync_folder
from project.runs.checkpoints import LAST, PREVIOUS


class LastCheckpoint(Checkpoint):
    """Callback that saves last.ckpt, from which a run resumes exactly, and keeps the one before as previous.ckpt.

    Saves at the start of training, after each epoch, periodically within an epoch, when a limit (`max_time`,
    `max_steps`) ends the run within an epoch, and on SIGTERM or SIGINT, which then stop the run.

    Args:
        every_minutes: Save at least this often, in minutes; a crash loses at most this much training.
        every_n_steps: Also save every this many steps; 0 disables it.

    Raises:
        UserError: An interval is out of range.
    """

    def __init__(self, every_minutes: float = 5.0, every_n_steps: int = 0) -> None:
        if every_minutes <= 0 or every_n_steps < 0:
            raise UserError("last.every_minutes must be above 0 and last.every_n_steps at least 0")
        self.every_minutes, self.every_n_steps = every_minutes, every_n_steps
        self.folder = Path()
        self._signals = Signals()
        self._saved_step: int | None = None
        self._metrics: dict[str, Tensor] = {}
        self._time, self._step_before, self._limit_reached = 0.0, 0, False
        self._group: Any = None
        self._pending: tuple[Any, Tensor] | None = None

    def setup(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Set the checkpoint folder."""
        self.folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Override the callback states of the checkpoint with the current patience and checkpoint folder."""
        self._metrics = checkpoint.get("callback_metrics", {})
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint["callbacks"].get(callback.state_key)
            if state and isinstance(callback, EarlyStopping):
                state |= {"patience": callback.patience, "stopped_epoch": 0}
            if state and isinstance(callback, ModelCheckpoint):
                _relocate(state, str(callback.dirpath))

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Install the signal handlers; fix the progress of a run that resumes between two epochs."""
        trainer.callbacks = [_SaveAtEnd(self._save), *trainer.callbacks]  # type: ignore[attr-defined]
        self._signals.install(trainer)
        if trainer.world_size > 1 and self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")
        self._time = time.monotonic()
        trainer.callback_metrics.update(self._metrics)  # for callbacks that need them before the next validation
        loop = trainer.fit_loop
        epochs: Any = loop.epoch_progress
        if epochs.current.processed == epochs.current.started:
            # Otherwise Lightning runs an empty epoch first if max_steps is set.
            for progress in (epochs.total, epochs.current):
                progress.completed = progress.processed
            loop.on_iteration_done()
            loop.epoch_loop.on_iteration_done()

    @override
    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._step_before = trainer.global_step
        if trainer.fit_loop.restarting:
            # Otherwise the schedulers that step per epoch would skip the end of the resumed epoch.
            trainer.fit_loop.on_iteration_done()

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Save the previous epoch; its scheduler step and metrics are complete only now."""
        self._save(trainer)
        self._stop(trainer, self._sync_request(trainer))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save if it is due or a signal was received; in the latter case stop."""
        request = self._sync_request(trainer)
        at_limit = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if at_limit and not self._limit_reached:
            request = request or 1
        # A checkpoint has no accumulated gradients, and would skip a validation that is due after this step.
        stepped = trainer.global_step > self._step_before
        if not request or not stepped or trainer.is_last_batch or _validation_follows(trainer, batch_idx):
            return
        self._limit_reached = at_limit
        self._save(trainer)
        self._stop(trainer, request)

    def on_train_end(self, *_: Any) -> None:
        """Restore the signal handlers; a signal that came after the last step still sets the exit code."""
        self._wait()
        self._signals.restore()
        if self._signals.received:
            name = signal.Signals(self._signals.received).name
            raise Interrupted(
                f"received {name} after training had finished: {self.folder}", 128 + self._signals.received
            )

    def on_exception(self, *_: Any) -> None:
        """Restore the signal handlers."""
        self._signals.restore()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the latest metrics; do not count an epoch that has not started."""
        checkpoint["callback_metrics"] = dict(trainer.callback_metrics)
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for part in ("total", "current"):
            progress[part]["ready"] = progress[part]["started"]

    def _sync_request(self, trainer: L.Trainer) -> int:
        """Return what all processes do now: the number of the signal to stop with, 1 to save, or 0."""
        step = trainer.global_step
        due = int(self.every_n_steps > 0 and step % self.every_n_steps == 0 and step != self._saved_step)
        request = self._signals.received or int(time.monotonic() - self._time >= 60 * self.every_minutes)
        if trainer.world_size == 1:
            return max(request, due)
        # The all-reduce on the CPU is asynchronous and its result used a step later, so that no step waits for it.
        agreed, self._pending = self._wait(), None
        reduced = torch.tensor(request if request > 1 or not agreed else 0)  # do not save twice for one request
        work = torch.distributed.all_reduce(reduced, torch.distributed.ReduceOp.MAX, self._group, async_op=True)
        self._pending = work, reduced
        return max(agreed, due)

    def _wait(self) -> int:
        if self._pending is None:
            return 0
        work, reduced = self._pending
        work.wait()
        return int(reduced)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run or self._saved_step == trainer.global_step:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()  # logged metrics must be on disk before the checkpoint, which drops later ones on resume
        fresh = self.folder / "next.ckpt"
        trainer.save_checkpoint(fresh)
        if trainer.is_global_zero:
            _rotate(fresh, self.folder / LAST, self.folder / PREVIOUS)
        self._saved_step, self._time = trainer.global_step, time.monotonic()

    def _stop(self, trainer: L.Trainer, request: int) -> None:
        if request <= 1:
            return
        name = signal.Signals(request).name
        requeued = trainer.is_global_zero and self._signals.requeue(request)
        raise Interrupted(
            f"stopped by {name} after step {trainer.global_step:,}; all progress is saved"
            + (", job requeued" if requeued else "")
            + f". Resume with: {python_command()} train.py fit --ckpt_path {quote(str(self.folder / LAST))}",
            128 + request,
        )


class _SaveAtEnd(L.Callback):
    """Callback that runs first, because weight averaging overwrites the weights at the end of training."""

    def __init__(self, save: Callable[[L.Trainer], None]) -> None:
        self._save = save

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.is_last_batch:  # if a limit ended the epoch early, its checkpoint was saved there
            self._save(trainer)


def _rotate(fresh: Path, last: Path, previous: Path) -> None:
    """Replace last.ckpt by a new file and keep the old one as previous.ckpt; last.ckpt exists at every moment."""
    if last.exists():
        previous.unlink(missing_ok=True)
        try:
            previous.hardlink_to(last)
        except OSError:  # no hard links on this file system: briefly, only previous.ckpt exists
            last.replace(previous)
    fresh.replace(last)
    sync_folder(last.parent)


def _validation_follows(trainer: L.Trainer, batch_idx: int) -> bool:
    every, loop = trainer.val_check_batch, trainer.fit_loop.epoch_loop
    count = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return bool(trainer.enable_validation and every and (count + 1) % every == 0)


def _relocate(state: dict[str, Any], folder: str) -> None:
    """Update the paths in the state of ModelCheckpoint if the run folder was moved."""
    if state["dirpath"] == folder or not (Path(folder) / Path(state["best_model_path"]).name).is_file():
        return

    def relocated(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else path

    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = relocated(state[key])
    for key in ("best_k_models", "losses"):
        state[key] = {relocated(path): value for path, value in state.get(key, {}).items()}
    state["dirpath"] = folder
