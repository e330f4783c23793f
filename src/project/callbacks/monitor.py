"""The figures that say whether training runs well: learning rate and speed."""

import time
from typing import Any

import lightning as L

from project.interface import Batch


class Monitor(L.Callback):
    """Logs `train/learning_rate` and `train/step_loss` each logging step, `train/images_per_second` each epoch.

    The loss is that of the first process's batch, the speed that of all devices; its clock stops while validation runs.
    """

    def __init__(self) -> None:
        self._images, self._seconds, self._since = 0, 0.0, 0.0
        self._step_before = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of an epoch that continues in the middle."""
        self._since = time.perf_counter()

    on_validation_end = on_train_start

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the epoch's clock."""
        self._images, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Log the learning rate of this step now and then."""
        step, first = trainer.global_step, batch_idx % trainer.accumulate_grad_batches == 0
        if first and (batch_idx == 0 or (step + 1) % trainer.log_every_n_steps == 0):  # type: ignore[attr-defined]
            _log(trainer, {"train/learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"])}, step)
        self._step_before = step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        """Count the batch; log its loss now and then."""
        step = trainer.global_step
        if step > self._step_before and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            _log(trainer, {"train/step_loss": float(outputs["loss"])}, step - 1)
        now = time.perf_counter()
        self._images += len(batch.index) * trainer.world_size
        self._seconds += now - self._since
        self._since = now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the epoch's speed."""
        if self._seconds:
            pl_module.log("train/images_per_second", self._images / self._seconds, rank_zero_only=True)


def _log(trainer: L.Trainer, scalars: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=step)
