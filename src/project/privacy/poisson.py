"""Poisson sampling, as assumed by the privacy accounting."""

import secrets
from collections.abc import Iterator

import numpy as np

from project.datamodules.sampler import EpochBatchSampler, Request


class PoissonBatchSampler(EpochBatchSampler):
    """A batch sampler that samples each image independently with the same probability in each step.

    The random numbers come from the operating system, not from the seed of the run, which is not secret. A resumed run
    samples its remaining steps again, which is equivalent because steps are independent.

    Args:
        size: Number of images.
        batch_size: Expected number of images in a batch.
        accumulate: Batches per optimizer step. The images of a step are sampled together, without repetition.
    """

    def __init__(self, size: int, batch_size: int, accumulate: int = 1) -> None:
        super().__init__(size, min(batch_size, size), "reshuffled each epoch")
        self.accumulate = accumulate
        self.rate = min(1.0, batch_size * accumulate / size)  # sampling probability of an image in a step
        self.steps = max(1, round(1 / self.rate))
        self.expected = self.rate * size  # expected number of images in a step

    @property
    def augmentation_seed(self) -> int:
        """A fresh random seed: with known augmentations one could infer whether an image is missing from the batch."""
        return secrets.randbits(63)

    @property
    def largest(self) -> int:
        """A batch size that is hardly ever exceeded; larger batches are loaded without a reusable buffer."""
        mean = self.expected / self.accumulate
        return min(self.size, int(mean + 5 * mean**0.5 + 5))

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def num_samples(self, first: int, last: int) -> int:
        """Return the expected number of images in batches `first` to `last - 1`, at least 1."""
        return max(1, round(self.expected * (last - first) / self.accumulate))

    def __iter__(self) -> Iterator[Request]:
        rng = np.random.default_rng()
        for _ in range(self.start // self.accumulate, self.steps):
            sampled = np.flatnonzero(rng.random(self.size) < self.rate)
            for part in np.array_split(sampled, self.accumulate):
                yield Request(self.epoch, part.tolist())
