"""Batches of any data set, in the order of a sampler, and the memory that worker processes put them in."""

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
    """A data loader that Lightning leaves as it is: sharing out over processes is the batches' own work.

    The data set returns a batch for a request. One with a `buffer_shape` fills memory that is used over and over: it is
    given as `places`, uint8 (batch, *shape) each. `position` says how many batches of the epoch are done already; it
    is asked when the first one is wanted.
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
        # Two batches a worker are under way, one is in use and one may be about to be.
        shape = getattr(dataset, "buffer_shape", None)
        self._lent = BufferPool(batches, shape or (), 2 * num_workers + 2 if num_workers and shape else 0)
        if shape:
            dataset.places = self._lent.places  # type: ignore[attr-defined]
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            sampler=self._lent,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals,
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        # Lightning asks for the iterator before it sets the epoch; workers would then read ahead in the wrong one.
        self.batch_sampler.start = self._position()
        with block_signals():
            batches = iter(self._loader)
        yield from map(self._lent.handed_over, batches)


def shared_memory(count: int, shape: tuple[int, ...]) -> Tensor:
    """uint8 (count, *shape), where another process can take it without a copy."""
    storage = torch.UntypedStorage._new_shared(count * math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(count, *shape)


class BufferPool(Sampler[Request]):
    """The requests of an epoch, each with memory for its batch; of `count` places, one that nobody uses is lent again.

    Workers hand batches over in shared memory. Fresh shared memory for each costs a photograph of 224 pixels a sixth
    of its time, as the kernel has to find and clear every page. A request beyond the places goes without.
    """

    def __init__(self, batches: EpochBatchSampler, shape: tuple[int, ...], count: int) -> None:
        self.batches = batches
        self.places = [shared_memory(batches.largest, shape) for _ in range(count)]
        self._users: dict[int, StorageWeakRef] = {}
        self._out: deque[int | None] = deque()

    def __iter__(self) -> Iterator[Request]:
        self._out.clear()  # workers have finished what was asked for in an epoch that was broken off
        for request in self.batches:
            place = next((place for place in range(len(self.places)) if self._is_free(place)), None)
            self._out.append(place)
            yield request._replace(place=place)

    def _is_free(self, place: int) -> bool:
        return place not in self._out and (place not in self._users or self._users[place].expired())

    def handed_over(self, batch: Batch) -> Batch:
        """Note who uses the memory of the oldest request now; returns its batch."""
        if (place := self._out.popleft()) is not None:
            self._users[place] = StorageWeakRef(batch.inputs.untyped_storage())
        return batch


@contextmanager
def block_signals() -> Iterator[None]:
    """Hold signals back, so that workers started meanwhile begin with them blocked; this process gets them after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals(worker: int) -> None:
    """Ctrl-C and schedulers signal all processes; workers must last until the main one has ended its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by_parent, daemon=True).start()


def _end_by_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
