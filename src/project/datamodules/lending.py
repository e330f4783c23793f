"""Memory for batches that worker processes fill, used over and over."""

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.data import Sampler

from project.datamodules.sampler import EpochBatches, Request
from project.interface import Batch


def shared_memory(count: int, size: int) -> Tensor:
    """uint8 (count, size, size, 3), where another process can take it without a copy."""
    storage = torch.UntypedStorage._new_shared(count * size * size * 3)
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(count, size, size, 3)


class LentMemory(Sampler[Request]):
    """The requests of an epoch, each with memory for its batch: what nothing refers to any more is lent again.

    Workers hand batches over in shared memory. Fresh shared memory for each costs a photograph of 224 pixels a sixth
    of its time, as the kernel has to find and clear every page.

    Args:
        batches: The requests, an epoch at a time.
        image_size: Height and width of the images, in pixels.
        count: Batches that there is memory for; a request beyond them goes without.
    """

    def __init__(self, batches: EpochBatches, image_size: int, count: int) -> None:
        self.batches = batches
        self.places = [shared_memory(batches.largest, image_size) for _ in range(count)]
        self._users: dict[int, StorageWeakRef] = {}
        self._out: deque[int | None] = deque()

    def __len__(self) -> int:
        return len(self.batches)

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
        place = self._out.popleft()
        if place is not None:
            self._users[place] = StorageWeakRef(batch.image.untyped_storage())
        return batch
