"""`train.py find_batch_size`: how many images of a step are worth it on this machine."""

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

WARM, STEPS, SIZES = 2, 8, 16  # steps of each size before the clock starts; steps in all; sizes at most
WORTH = 1.1  # by what factor speed has to grow for twice the images


class Doubling(L.Callback):
    """Trains an epoch of few steps with each size, and prints its speed."""

    def __init__(self, data: DataModule) -> None:
        self.speeds: dict[int, float] = {}  # images a second over all devices, by batch size; each that fits
        self._data = data
        self._seconds: list[float] = []
        self._since = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, _: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Time a step with its share of reading, unless it is a first one or its batch not whole."""
        float(outputs["loss"])  # waits for the device
        now = time.perf_counter()
        if batch_idx >= WARM and len(batch.index) >= self._data.batch_size // trainer.world_size:
            self._seconds.append(now - self._since)
        self._since = now

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Note this size; go on to the next, or stop."""
        size = self._data.batch_size
        mine = size / min(self._seconds) if self._seconds else 0.0  # other programs can only delay a step
        self._seconds = []
        self.speeds[size] = float(trainer.strategy.reduce(torch.tensor(mine), reduce_op="mean"))
        if trainer.is_global_zero:
            device = trainer.strategy.root_device
            peak = f"{torch.cuda.max_memory_allocated(device) / 1e9:>10.1f} GB" if device.type == "cuda" else ""
            print(f"{size:>10,} {self.speeds[size]:>12,.0f}{peak}", flush=True)
        *before, last, latest = [0.0, 0.0, *self.speeds.values()]
        grew = max(last, latest) >= WORTH * max(before, default=0.0)
        enough = 2 * size * (WARM + 2) <= self._data.split_sizes()["train"]
        trainer.should_stop = not grew or not enough
        if grew and not enough and trainer.is_global_zero:
            print(f"{2 * size:>10,} {'not tried':>12}: the train split has too few images")
        self._data.batch_size = 2 * size


def find_batch_size(job: Untrained, smallest: int = 16) -> None:
    """Train some steps with ever larger batches until no more fits or speed grows no more, and suggest a size.

    Args:
        job: What to train on what.
        smallest: Images of a step to begin with, over all devices together; doubled each time.

    Raises:
        UserError: not even the smallest size fits, or the data has too few images.
    """
    trainer, data = job.trainer, job.data
    data.batch_size = smallest
    doubling = Doubling(data)
    train_only(trainer, doubling, STEPS * SIZES)
    trainer.limit_train_batches = STEPS
    trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
    if trainer.is_global_zero:
        print(f"{'batch_size':>10} {'images/s':>12}")
    try:
        trainer.fit(job.module, datamodule=data)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not is_oom_error(error):
            raise
        if not doubling.speeds:
            half = max(1, smallest // 2)
            raise UserError(f"not even {smallest} images fit into memory: try --smallest {half}") from None
        print(f"{data.batch_size:>10,} {'out of memory':>12}")
    if not any(doubling.speeds.values()):
        raise UserError(f"too few images for more than {WARM} steps of {smallest}: try a --smallest that is smaller")
    if trainer.is_global_zero:
        fastest = max(doubling.speeds.values())
        size = min(size for size, speed in doubling.speeds.items() if WORTH * speed >= fastest)
        print(f"suggested {size}: no size tried is over {WORTH - 1:.0%} faster")
        print(f"add       --data.batch_size {size}    another size wants another learning rate: find_lr")
