"""Which images make which batch, on which process."""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

Order = Literal["ascending", "mixed", "new each epoch"]  # as they stand, a random order that stays, one for each epoch


def seed_rng(*counts: int, device: torch.device | None = None) -> None:
    """Make what torch draws from here on a function of these numbers."""
    # `torch.manual_seed` would do, but on a machine whose GPU is not in use it notes a stack trace each time.
    seed = int.from_bytes(blake2b(repr(counts).encode(), digest_size=8).digest())
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Request(NamedTuple):
    """What a loader asks a data set for: the images at some positions, as of an epoch, and where to put them."""

    epoch: int
    positions: list[int]
    place: int | None = None


class EpochBatchSampler(Sampler[Request]):
    """Batches of positions; the order of an epoch is a function of (seed, epoch), whatever the number of processes.

    The epoch's order is cut into global batches and each process takes its share of every one, so that no image is
    lost or counted twice, all processes take the same number of steps, and two processes see what one would see.

    A batch holds `batch_size` images over all processes together, of which there are at most so many, and `size` at
    most. With strata, int64 (size,), each of these appears equally often in an epoch of unchanged length: images of a
    rare one return more often, those of a frequent one are not all seen in every epoch. An epoch begins with the batch
    `start`, from 0: those before it were used before the run was interrupted.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        order: Order,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        strata: NDArray[np.int64] | None = None,
    ) -> None:
        self.size, self.order, self.seed, self.strata = size, order, seed, strata
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0
        self._edges: list[int] = [*range(0, size, batch_size), size]
        # A remainder that does not go round, or is one image, of which batch norm cannot take the spread, joins the
        # batch before it: for one process as for two, so that these take the same steps.
        if len(self._edges) > 2 and self._edges[-1] - self._edges[-2] < min(max(2, world_size), batch_size):
            del self._edges[-2]

    @property
    def draw_seed(self) -> int:
        """Seed of what augmentation and dropout draw in a step."""
        return self.seed

    @property
    def largest(self) -> int:
        """Most images in a batch of one process."""
        return -(-max(end - start for start, end in pairwise(self._edges)) // self.world_size)

    @property
    def sampler(self) -> "EpochBatchSampler":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._edges) - 1

    def images(self, first: int, last: int) -> int:
        """Return how many images the batches `first` to `last - 1` hold, over all processes together."""
        return self._edges[last] - self._edges[first]

    def __iter__(self) -> Iterator[Request]:
        order = self._order()
        for start, end in list(pairwise(self._edges))[self.start :]:
            yield Request(self.epoch, np.array_split(order[start:end], self.world_size)[self.rank].tolist())

    def _order(self) -> NDArray[np.int64]:
        order = np.arange(self.size)
        if self.order == "ascending":
            return order
        draw = np.random.default_rng((self.seed, self.epoch if self.order == "new each epoch" else 0))
        if self.strata is not None:
            groups = [order[self.strata == stratum] for stratum in np.unique(self.strata)]
            share = -(-self.size // len(groups))
            rounds = [[draw.permutation(group) for _ in range(-(-share // len(group)))] for group in groups]
            order = np.concatenate([np.concatenate(parts)[:share] for parts in rounds])
        draw.shuffle(order)
        return order[: self.size]
