"""Poisson sampling, which the accounting of private training assumes."""

import secrets
from collections.abc import Iterator

import numpy as np

from project.datamodules.sampler import EpochBatchSampler, Request


class PoissonBatchSampler(EpochBatchSampler):
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
        self.rate = min(1.0, batch_size * accumulate / size)  # the chance of an image to be drawn in a step
        self.steps = max(1, round(1 / self.rate))
        self.expected = self.rate * size  # images of a step

    @property
    def draw_seed(self) -> int:
        """Another each time: who knew what a place in the batch draws could tell whether an image before is missing."""
        return secrets.randbits(63)

    @property
    def largest(self) -> int:
        """What hardly any batch exceeds; one that does goes without lent memory."""
        share = self.expected / self.accumulate
        return min(self.size, int(share + 5 * share**0.5 + 5))

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def images(self, first: int, last: int) -> int:
        """Return how many images the batches `first` to `last - 1` may be expected to hold, at least 1."""
        return max(1, round(self.expected * (last - first) / self.accumulate))

    def __iter__(self) -> Iterator[Request]:
        draw = np.random.default_rng()
        for _ in range(self.start // self.accumulate, self.steps):
            drawn = np.flatnonzero(draw.random(self.size) < self.rate)
            for part in np.array_split(drawn, self.accumulate):
                yield Request(self.epoch, part.tolist())
