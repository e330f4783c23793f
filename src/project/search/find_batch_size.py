"""`train.py find_batch_size`: the smallest batch size with nearly the highest throughput."""

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.memory import is_oom_error

from project.datamodules.base import DataModule
from project.errors import UserError
from project.interface import Batch
from project.runs.job import Untrained
from project.search.find_lr import train_only

WARMUP_STEPS, STEPS, MAX_SIZES = 2, 8, 16  # per size: untimed steps, steps in total; maximum number of sizes
MIN_SPEEDUP = 1.1  # minimum speedup to continue with twice the batch size


class BatchSizeFinder(L.Callback):
    """Callback that trains a short epoch with each batch size, doubling it each time, and prints the throughput.

    Attributes:
        throughput: Samples per second over all devices, by batch size.
    """

    def __init__(self, data: DataModule) -> None:
        self.throughput: dict[int, float] = {}
        self._data = data
        self._seconds: list[float] = []
        self._since = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, _: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Time a step including data loading; skip warm-up steps and incomplete batches."""
        float(outputs["loss"])  # synchronizes the device
        now = time.perf_counter()
        if batch_idx >= WARMUP_STEPS and len(batch.index) >= self._data.batch_size // trainer.world_size:
            self._seconds.append(now - self._since)
        self._since = now

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Record the throughput; double the batch size or stop."""
        size = self._data.batch_size
        speed = size / min(self._seconds) if self._seconds else 0.0  # the minimum is least affected by other processes
        self._seconds = []
        self.throughput[size] = float(trainer.strategy.reduce(torch.tensor(speed), reduce_op="mean"))
        if trainer.is_global_zero:
            device = trainer.strategy.root_device
            peak = f"{torch.cuda.max_memory_allocated(device) / 1e9:>10.1f} GB" if device.type == "cuda" else ""
            print(f"{size:>10,} {self.throughput[size]:>12,.0f}{peak}", flush=True)
        *before, previous, latest = [0.0, 0.0, *self.throughput.values()]
        improved = max(previous, latest) >= MIN_SPEEDUP * max(before, default=0.0)
        enough = 2 * size * (WARMUP_STEPS + 2) <= self._data.split_sizes()["train"]
        trainer.should_stop = not improved or not enough
        if improved and not enough and trainer.is_global_zero:
            print(f"{2 * size:>10,} {'skipped':>12}: too few {self._data.description.input.kind}s in the train split")
        self._data.batch_size = 2 * size


def find_batch_size(job: Untrained, min_batch_size: int = 16) -> None:
    """Measure training throughput for increasing batch sizes and suggest one; no weights are saved.

    Doubles the batch size until it no longer fits into memory or throughput stops increasing.

    Args:
        job: The trainer, the module and the datamodule.
        min_batch_size: First batch size, over all devices; doubled each time.

    Raises:
        UserError: the first batch size does not fit into memory, or the dataset has too few samples.
    """
    trainer, data, units = job.trainer, job.data, f"{job.data.input.kind}s"
    data.batch_size = min_batch_size
    finder = BatchSizeFinder(data)
    train_only(trainer, finder, STEPS * MAX_SIZES)
    trainer.limit_train_batches = STEPS
    trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
    if trainer.is_global_zero:
        print(f"{'batch_size':>10} {f'{units}/s':>12}")
    try:
        trainer.fit(job.module, datamodule=data)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not is_oom_error(error):
            raise
        if not finder.throughput:
            half = max(1, min_batch_size // 2)
            raise UserError(
                f"a batch of {min_batch_size} {units} does not fit into memory: try --min_batch_size {half}"
            ) from None
        print(f"{data.batch_size:>10,} {'out of memory':>12}")
    if not any(finder.throughput.values()):
        raise UserError(
            f"too few {units} for more than {WARMUP_STEPS} steps with batch size {min_batch_size}:"
            " try a smaller --min_batch_size"
        )
    if trainer.is_global_zero:
        fastest = max(finder.throughput.values())
        size = min(size for size, speed in finder.throughput.items() if MIN_SPEEDUP * speed >= fastest)
        print(f"suggested {size}: no tested size is more than {MIN_SPEEDUP - 1:.0%} faster")
        print(f"add       --data.batch_size {size}    and tune the learning rate for it, e.g. with train.py find_lr")
