"""Callback that monitors the learning rate, the step loss and the throughput."""

import time
from typing import Any

import lightning as L

from project.interface import Batch, module_of


class Monitor(L.Callback):
    """Callback that logs learning rate and step loss every `log_every_n_steps`, and samples per second every epoch.

    `train/step_loss` is the loss of the first process's batch. `train/images_per_second`, of texts
    `train/texts_per_second`, sums over all devices and excludes validation.
    """

    def __init__(self) -> None:
        self._samples, self._seconds, self._since = 0, 0.0, 0.0
        self._step_before = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start timing: on_train_epoch_start is not called when training resumes in the middle of an epoch."""
        self._since = time.perf_counter()

    on_validation_end = on_train_start

    def on_train_epoch_start(self, *_: Any) -> None:
        """Reset the sample count and the timer."""
        self._samples, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Log the learning rate every `log_every_n_steps`."""
        step, first = trainer.global_step, batch_idx % trainer.accumulate_grad_batches == 0
        if first and (batch_idx == 0 or (step + 1) % trainer.log_every_n_steps == 0):  # type: ignore[attr-defined]
            _log(trainer, {"train/learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"])}, step)
        self._step_before = step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        """Log the loss every `log_every_n_steps` and update the sample count and the time."""
        step = trainer.global_step
        if step > self._step_before and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            _log(trainer, {"train/step_loss": float(outputs["loss"])}, step - 1)
        now = time.perf_counter()
        self._samples += len(batch.index) * trainer.world_size
        self._seconds += now - self._since
        self._since = now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the samples per second of the epoch."""
        if self._seconds:
            name = f"train/{module_of(trainer).task.sample}s_per_second"
            pl_module.log(name, self._samples / self._seconds, rank_zero_only=True)


def _log(trainer: L.Trainer, scalars: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=step)
