"""Base class of datasets that return a whole batch for a request."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from project.datamodules.index import Index
from project.interface import Batch


class IndexedDataset(Dataset[Batch]):
    """A dataset of some rows of an index; subclasses implement `__getitem__`, which maps a `Request` to a `Batch`,
    and `raw`.

    Args:
        index: The index.
        rows: int64 (N,), rows of the index; a sample's position is its position in `rows`.

    Attributes:
        on_device: True if batches are created on the device.
        lengths: Length of each sample, int64 (N,), if they differ: batches then have samples of similar lengths.
        pixels: Packed samples that are used instead of reading them, by row of the index.
    """

    on_device: bool = False
    lengths: NDArray[np.int64] | None = None
    pixels: Any = None

    def __init__(self, index: Index, rows: NDArray[np.int64]) -> None:
        self.index, self.rows = index, rows

    def __len__(self) -> int:
        return len(self.rows)

    def raw(self, row: int, fitted: bool = True) -> NDArray[Any]:
        """Return the sample of a row of the index as exported models take it, without augmentation.

        Args:
            row: Row of the index.
            fitted: Return it in the size in which the network takes it, rather than in its own.
        """
        raise NotImplementedError

    def even(self, count: int) -> list[int]:
        """Return up to `count` evenly spaced positions."""
        return [*map(int, np.linspace(0, len(self) - 1, min(count, len(self))).round())]
