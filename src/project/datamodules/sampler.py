"""Which images make which batch, on which process."""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

Order = Literal["ascending", "mixed", "new each epoch"]
"""As the images stand, a random order that stays, or one for each epoch."""


def seed_draws(*counts: int, device: torch.device | None = None) -> None:
    """Make what torch draws from here on a function of these numbers.

    `torch.manual_seed` would do, but on a machine whose GPU is not in use it notes a stack trace each time.
    """
    seed = int.from_bytes(blake2b(repr(counts).encode(), digest_size=8).digest())
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Request(NamedTuple):
    """What a loader asks a data set for: the images at some positions, as of an epoch, and where to put them."""

    epoch: int
    positions: list[int]
    place: int | None = None


class EpochBatches(Sampler[Request]):
    """Batches of positions; the order of an epoch is a function of (seed, epoch), whatever the number of processes.

    The epoch's order is cut into global batches and each process takes its share of every one, so that no image is
    lost or counted twice, all processes take the same number of steps, and two processes see what one would see.

    Args:
        size: Number of images.
        batch_size: Images a step over all processes together.
        order: The order of the images.
        seed: Seed of an order that is random.
        rank: This process, from 0.
        world_size: Number of processes, at most `batch_size` and at most `size`.
        strata: Shuffle so that each of these, int64 (size,), appears equally often in an epoch of unchanged length:
            images of a rare stratum return more often, those of a frequent one are not all seen in every epoch.

    Attributes:
        start: The first batch to give, from 0: those before it were used before the run was interrupted.
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
        self.size, self.order, self.seed = size, order, seed
        self.rank, self.world_size = rank, world_size
        self.strata = strata
        self.epoch, self.start = 0, 0
        self._edges = [*range(0, size, batch_size), size]
        # A remainder that does not go round, or is one image, of which batch norm cannot take the spread, joins the
        # batch before it: for one process as for two, so that these take the same steps.
        if len(self._edges) > 2 and self._edges[-1] - self._edges[-2] < min(max(2, world_size), batch_size):
            del self._edges[-2]

    @property
    def largest(self) -> int:
        """Most images in a batch of one process."""
        most: int = np.diff(self._edges).max().item()
        return -(-most // self.world_size)

    @property
    def sampler(self) -> "EpochBatches":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._edges) - 1

    def images(self, first: int, last: int) -> int:
        """How many images the batches `first` to `last - 1` hold, over all processes together."""
        count: int = self._edges[last] - self._edges[first]
        return count

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
            order = np.concatenate([_deal(group, share, draw) for group in groups])
        draw.shuffle(order)
        return order[: self.size]


class PoissonBatches(EpochBatches):
    """Batches for private training: each step draws each image by itself, with the same chance.

    The draws come from the operating system's entropy, not from the seed, which is no secret: so are those of steps
    that a continued run has still to do. Whether an image was drawn before changes nothing.

    Args:
        size: Number of images.
        batch_size: Images of a batch to be expected.
        accumulate: Batches that a step is made of; a step's images are drawn at once, so that none comes twice.
    """

    def __init__(self, size: int, batch_size: int, accumulate: int = 1) -> None:
        super().__init__(size, min(batch_size, size), "new each epoch")
        self.accumulate = accumulate
        self.rate = min(1.0, batch_size * accumulate / size)
        """The chance of an image to be drawn in a step."""
        self.steps = max(1, round(1 / self.rate))

    @property
    def expected(self) -> float:
        """Images of a step to be expected."""
        return self.rate * self.size

    @property
    def largest(self) -> int:
        """What hardly any batch exceeds; one that does goes without lent memory."""
        share = self.expected / self.accumulate
        return min(self.size, int(share + 5 * share**0.5 + 5))

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def images(self, first: int, last: int) -> int:
        """How many images the batches `first` to `last - 1` may be expected to hold, at least 1."""
        return max(1, round(self.expected * (last - first) / self.accumulate))

    def __iter__(self) -> Iterator[Request]:
        draw = np.random.default_rng()
        for _ in range(self.start // self.accumulate, self.steps):
            drawn = np.flatnonzero(draw.random(self.size) < self.rate)
            for part in np.array_split(drawn, self.accumulate):
                yield Request(self.epoch, part.tolist())


def _deal(group: NDArray[np.int64], count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """`count` members of a group, each as often as any other, give or take one."""
    return np.concatenate([draw.permutation(group) for _ in range(-(-count // len(group)))])[:count]
