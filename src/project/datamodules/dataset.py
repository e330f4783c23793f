"""Base class of datasets that return a whole batch for a request."""

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from project.datamodules.index import Index
from project.interface import Batch


class IndexedDataset(Dataset[Batch]):
    """A dataset of some rows of an index; subclasses implement `__getitem__`, which maps a `Request` to a `Batch`.

    Args:
        index: The index.
        rows: int64 (N,), rows of the index; a sample's position is its position in `rows`.

    Attributes:
        on_device: True if batches are created on the device.
        lengths: Length of each sample, int64 (N,), if they differ: batches then have samples of similar lengths.
    """

    on_device: bool = False
    lengths: NDArray[np.int64] | None = None

    def __init__(self, index: Index, rows: NDArray[np.int64]) -> None:
        self.index, self.rows = index, rows

    def __len__(self) -> int:
        return len(self.rows)

    def even(self, count: int) -> list[int]:
        """Return up to `count` evenly spaced positions."""
        return [*map(int, np.linspace(0, len(self) - 1, min(count, len(self))).round())]
