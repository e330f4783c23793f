"""Batch sampler with a reproducible order for any number of processes."""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

WINDOW = 50
"""Maximum number of batches that are sorted by length together."""
Order = Literal["sequential", "shuffled", "reshuffled each epoch"]  # "shuffled": once, the same in every epoch


def hash_seed(*values: int) -> int:
    """Return a 64-bit hash of the values as a seed."""
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=8).digest())


def seed_rng(*values: int, device: torch.device | None = None) -> None:
    """Seed torch's generators of the CPU and, if given, of a CUDA device with a hash of the values."""
    # `torch.manual_seed` records a stack trace on every call while the machine's GPU is unused.
    seed = hash_seed(*values)
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Request(NamedTuple):
    """Request for a batch: the epoch, the positions of the samples and the number of the buffer to write to, if any."""

    epoch: int
    positions: list[int]
    buffer: int | None = None


class EpochBatchSampler(Sampler[Request]):
    """A batch sampler whose order is a function of (seed, epoch), independent of the number of processes.

    The order is cut into global batches, of which each process takes its share: no sample is dropped or repeated, all
    processes take the same number of steps, and two processes train on the same batches as one.

    Args:
        size: Number of samples.
        batch_size: Global batch size, over all processes.
        order: Order of the samples.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes, at most `batch_size` and `size`.
        strata: int64 (size,). All strata are sampled equally often, in an epoch of the same length: samples of a rare
            stratum are repeated, and an epoch contains only some of the samples of a frequent one.
        lengths: int64 (size,). Batches of a shuffled order have samples of similar lengths: those of `WINDOW` batches,
            or of a quarter of the epoch, are sorted, and the batches shuffled again. Khomenko et al., Accelerating
            Recurrent Neural Network Training using Sequence Bucketing, 2017.
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
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        self.size, self.order, self.seed, self.strata, self.lengths = size, order, seed, strata, lengths
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0  # the first batch is above 0 when an epoch is resumed
        self._edges: list[int] = [*range(0, size, batch_size), size]
        # A last batch with fewer samples than processes, or with one sample, for which batch norm cannot compute a
        # variance, is merged into the previous batch. One process does the same as two, to take the same steps.
        if len(self._edges) > 2 and self._edges[-1] - self._edges[-2] < min(max(2, world_size), batch_size):
            del self._edges[-2]

    @property
    def augmentation_seed(self) -> int:
        """Seed of augmentation and dropout in a step."""
        return self.seed

    @property
    def largest(self) -> int:
        """Largest number of samples in a batch of one process."""
        return -(-max(end - start for start, end in pairwise(self._edges)) // self.world_size)

    @property
    def smallest(self) -> int:
        """Smallest number of samples in a batch of one process."""
        return min(end - start for start, end in pairwise(self._edges)) // self.world_size

    @property
    def sampler(self) -> "EpochBatchSampler":
        """The sampler whose `set_epoch` Lightning calls."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._edges) - 1

    def num_samples(self, first: int, last: int) -> int:
        """Return the number of samples in batches `first` to `last - 1`, over all processes."""
        return self._edges[last] - self._edges[first]

    def __iter__(self) -> Iterator[Request]:
        order = self._order()
        for start, end in list(pairwise(self._edges))[self.start :]:
            yield Request(self.epoch, np.array_split(order[start:end], self.world_size)[self.rank].tolist())

    def _order(self) -> NDArray[np.int64]:
        order = np.arange(self.size)
        if self.order == "sequential":
            return order
        rng = np.random.default_rng((self.seed, self.epoch if self.order == "reshuffled each epoch" else 0))
        if self.strata is not None:
            groups = [order[self.strata == stratum] for stratum in np.unique(self.strata)]
            share = -(-self.size // len(groups))
            rounds = [[rng.permutation(group) for _ in range(-(-share // len(group)))] for group in groups]
            order = np.concatenate([np.concatenate(parts)[:share] for parts in rounds])
        rng.shuffle(order)
        return order[: self.size] if self.lengths is None else self._by_length(order[: self.size], rng)

    def _by_length(self, order: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the order with samples of similar lengths in each batch; the last batch keeps its size and place."""
        assert self.lengths is not None
        batches: list[NDArray[np.int64]] = []
        edges = [*pairwise(self._edges)]
        size = max(1, min(WINDOW, len(edges) // 4))  # one window for all would give the same batches in every epoch
        for first in range(0, len(edges), size):
            window = order[edges[first][0] : edges[min(first + size, len(edges)) - 1][1]]
            window = window[np.argsort(self.lengths[window], kind="stable")]
            batches += np.split(window, [end - edges[first][0] for _, end in edges[first : first + size - 1]])
        batches = [batch for batch in batches if len(batch)]
        whole = [batch for batch in batches if len(batch) == len(batches[0])]
        return np.concatenate([*(whole[i] for i in rng.permutation(len(whole))), *batches[len(whole) :]])
