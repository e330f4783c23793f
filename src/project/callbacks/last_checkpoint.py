"""last.ckpt, and stopping so that nothing is lost."""

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

from project.callbacks.describe import python_command
from project.callbacks.signals import Signals
from project.errors import Interrupted, UserError
from project.files import sync_folder
from project.runs.checkpoints import LAST, PREVIOUS


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt, from which a run continues as if it had never stopped, and the one before it.

    It is written at the start, after each epoch with all that belongs to it, now and then within an epoch, when a limit
    (`max_time`, `max_steps`) ends the run within one, and on SIGTERM or SIGINT, which then end the run.

    Args:
        every_minutes: Write it at least this often, in minutes: what a crash may cost.
        every_n_steps: Write it also whenever this many steps are done; 0 does not.
    """

    def __init__(self, every_minutes: float = 5.0, every_n_steps: int = 0) -> None:
        if every_minutes <= 0 or every_n_steps < 0:
            raise UserError("last.every_minutes must be above 0, last.every_n_steps at least 0")
        self.every_minutes, self.every_n_steps = every_minutes, every_n_steps
        self.folder = Path()
        self._signals = Signals()
        self._saved: int | None = None
        self._metrics: dict[str, Tensor] = {}
        self._time, self._step_before, self._limit_reached = 0.0, 0, False
        self._group: Any = None
        self._asked: tuple[Any, Tensor] | None = None

    def setup(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Find the folder of the checkpoints."""
        self.folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let what is configured now beat what the callbacks stored: patience, and where the run's folder is."""
        self._metrics = checkpoint.get("callback_metrics", {})
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint["callbacks"].get(callback.state_key)
            if state and isinstance(callback, EarlyStopping):
                state |= {"patience": callback.patience, "stopped_epoch": 0}
            if state and isinstance(callback, ModelCheckpoint):
                _move(state, str(callback.dirpath))

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Listen to signals; make a run that continues between two epochs forget that it was stopped."""
        trainer.callbacks = [_SaveTheEnd(self._save), *trainer.callbacks]  # type: ignore[attr-defined]
        self._signals.listen(trainer)
        if trainer.world_size > 1 and self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")
        self._time = time.monotonic()
        trainer.callback_metrics.update(self._metrics)  # of the last validation, for callbacks that run before the next
        loop = trainer.fit_loop
        epochs: Any = loop.epoch_progress
        if epochs.current.processed == epochs.current.started:
            # Left to itself, Lightning runs an empty epoch first where max_steps is given.
            for progress in (epochs.total, epochs.current):
                progress.completed = progress.processed
            loop.on_iteration_done()
            loop.epoch_loop.on_iteration_done()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Note the step."""
        self._step_before = trainer.global_step
        if trainer.fit_loop.restarting:
            # Else the schedule of the whole epoch that was interrupted would not move at its end.
            trainer.fit_loop.on_iteration_done()

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Save what the epoch before came to; only now are its schedule and its curves complete."""
        self._save(trainer)
        self._stop(trainer, self._agree(trainer))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save if it is time to, and stop if a signal came."""
        wanted = self._agree(trainer)
        at_limit = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if at_limit and not self._limit_reached:
            wanted = wanted or 1
        # Gradients that are being accumulated are not in a checkpoint; a validation that follows would be left out.
        stepped = trainer.global_step > self._step_before
        if not wanted or not stepped or trainer.is_last_batch or _validation_follows(trainer, batch_idx):
            return
        self._limit_reached = at_limit
        self._save(trainer)
        self._stop(trainer, wanted)

    def on_train_end(self, *_: Any) -> None:
        """Leave the signals alone; one that came too late to stop anything still sets the exit code."""
        self._answer()
        self._signals.leave()
        if self._signals.received:
            name = signal.Signals(self._signals.received).name
            raise Interrupted(f"stopped by {name}, but trained to the end: {self.folder}", 128 + self._signals.received)

    def on_exception(self, *_: Any) -> None:
        """Leave the signals alone."""
        self._signals.leave()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the latest metrics; an epoch that is about to start has not begun."""
        checkpoint["callback_metrics"] = dict(trainer.callback_metrics)
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for part in ("total", "current"):
            progress[part]["ready"] = progress[part]["started"]

    def _agree(self, trainer: L.Trainer) -> int:
        """What all processes do now: the number of a signal to stop by, 1 to save, 0 to go on."""
        step = trainer.global_step
        due = int(self.every_n_steps > 0 and step % self.every_n_steps == 0 and step != self._saved)
        wanted = self._signals.received or int(time.monotonic() - self._time >= 60 * self.every_minutes)
        if trainer.world_size == 1:
            return max(wanted, due)
        # The answer to what was asked a step ago, between the processors: no step waits for it, nor for a GPU.
        agreed, self._asked = self._answer(), None
        shared = torch.tensor(wanted if wanted > 1 or not agreed else 0)  # nobody asks again for what is saved now
        work = torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX, self._group, async_op=True)
        self._asked = work, shared
        return max(agreed, due)

    def _answer(self) -> int:
        if self._asked is None:
            return 0
        work, shared = self._asked
        work.wait()
        return int(shared)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run or self._saved == trainer.global_step:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()  # the curves up to here must be on the disk before a checkpoint that drops what follows
        fresh = self.folder / "next.ckpt"
        trainer.save_checkpoint(fresh)
        if trainer.is_global_zero:
            _rotate(fresh, self.folder / LAST, self.folder / PREVIOUS)
        self._saved, self._time = trainer.global_step, time.monotonic()

    def _stop(self, trainer: L.Trainer, wanted: int) -> None:
        if wanted <= 1:
            return
        name = signal.Signals(wanted).name
        queued = trainer.is_global_zero and self._signals.requeue(wanted)
        raise Interrupted(
            f"stopped by {name} after step {trainer.global_step:,}; nothing is lost"
            + (", the job is queued again" if queued else "")
            + f". Continue by: {python_command()} train.py fit --ckpt_path {quote(str(self.folder / LAST))}",
            128 + wanted,
        )


class _SaveTheEnd(L.Callback):
    """Goes before all callbacks: at the end, weight averaging puts averaged weights in the place of the live ones."""

    def __init__(self, save: Callable[[L.Trainer], None]) -> None:
        self._save = save

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.is_last_batch:  # unless a limit cut the epoch short: then the checkpoint of the cut stays
            self._save(trainer)


def _rotate(fresh: Path, last: Path, previous: Path) -> None:
    """Put a file in the place of the last one and keep that; there is a last one at every moment."""
    if last.exists():
        previous.unlink(missing_ok=True)
        try:
            previous.hardlink_to(last)
        except OSError:  # no hard links on this file system: for a moment there is only the one before
            last.replace(previous)
    fresh.replace(last)
    sync_folder(last.parent)


def _validation_follows(trainer: L.Trainer, batch_idx: int) -> bool:
    every, loop = trainer.val_check_batch, trainer.fit_loop.epoch_loop
    count = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return bool(trainer.enable_validation and every and (count + 1) % every == 0)


def _move(state: dict[str, Any], folder: str) -> None:
    """Correct the paths that ModelCheckpoint stored, where the run's folder is elsewhere by now."""
    if state["dirpath"] == folder or not (Path(folder) / Path(state["best_model_path"]).name).is_file():
        return

    def moved(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else path

    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
    state["dirpath"] = folder
