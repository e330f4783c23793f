"""Dataloader that reuses shared-memory buffers for the batches of its workers."""

import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.data import DataLoader, Dataset, Sampler

from project.datamodules.sampler import EpochBatchSampler, Request
from project.interface import Batch


class Loader:
    """A dataloader that Lightning uses as is, because its batch sampler distributes batches over processes.

    The dataset returns a whole batch for a request. If it has a `buffer_shape` and a `dtype`, it writes batches into
    reusable buffers, which are assigned to its attribute `buffers`: (batch, *buffer_shape) each. `position` returns the
    number of completed batches in the epoch; it is called when the first batch of an epoch is requested.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        batches: EpochBatchSampler,
        num_workers: int,
        pin_memory: bool,
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        self.batch_sampler, self._position = batches, position
        # Each worker prefetches two batches, one batch is in use and one may be next.
        shape = getattr(dataset, "buffer_shape", None)
        dtype = getattr(dataset, "dtype", torch.uint8)
        self._pool = BufferPool(batches, shape or (), dtype, 2 * num_workers + 2 if num_workers and shape else 0)
        if shape:
            dataset.buffers = self._pool.buffers  # type: ignore[attr-defined]
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            sampler=self._pool,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_ignore_signals,
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that workers start at the first `next`: Lightning calls `iter` before `set_epoch`, and they
        # would prefetch batches of the wrong epoch.
        self.batch_sampler.start = self._position()
        with block_signals():
            batches = iter(self._loader)
        yield from map(self._pool.track, batches)


def shared_memory(count: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Allocate a tensor (count, *shape) in shared memory."""
    storage = torch.UntypedStorage._new_shared(count * math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(count, *shape)


class BufferPool(Sampler[Request]):
    """A sampler that assigns a free shared-memory buffer, one of `count`, to each request.

    Allocating new shared memory for each batch takes a sixth of the loading time of 224-pixel images, as the kernel
    has to find and clear every page. If no buffer is free, the request has none.
    """

    def __init__(self, batches: EpochBatchSampler, shape: tuple[int, ...], dtype: torch.dtype, count: int) -> None:
        self.batches = batches
        self.buffers = [shared_memory(batches.largest, shape, dtype) for _ in range(count)]
        self._storages: dict[int, StorageWeakRef] = {}  # of the last batch in each buffer
        self._pending: deque[int | None] = deque()  # buffers of the requests whose batches have not arrived

    def __iter__(self) -> Iterator[Request]:
        self._pending.clear()  # after an interrupted epoch: workers have completed its requests
        for request in self.batches:
            buffer = next((buffer for buffer in range(len(self.buffers)) if self._is_available(buffer)), None)
            self._pending.append(buffer)
            yield request._replace(buffer=buffer)

    def _is_available(self, buffer: int) -> bool:
        return buffer not in self._pending and (buffer not in self._storages or self._storages[buffer].expired())

    def track(self, batch: Batch) -> Batch:
        """Return the batch of the oldest pending request; its buffer is in use as long as the batch's memory is."""
        if (buffer := self._pending.popleft()) is not None:
            self._storages[buffer] = StorageWeakRef(batch.inputs.untyped_storage())
        return batch


@contextmanager
def block_signals() -> Iterator[None]:
    """Block SIGINT and SIGTERM, so that workers inherit the mask; this process receives pending signals on exit."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_signals(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM in a worker, except SIGTERM from the main process, which finishes its step first.

    Terminals and schedulers send these signals to all processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parent_signal, daemon=True).start()


def _exit_on_parent_signal() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
