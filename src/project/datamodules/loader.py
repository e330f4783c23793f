"""Images from files, batch by batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from project.datamodules.decode import UnreadableImageError, read_rgb, to_square
from project.datamodules.index import ImageIndex
from project.datamodules.sampler import EpochBatches
from project.errors import UserError
from project.interface import Batch


class ImageFiles(Dataset[Batch]):
    """Images decoded from their files; indexed by a list of positions, it returns a whole batch.

    Args:
        index: The images.
        rows: The rows of the index that this data set holds, in order.
        image_size: Height and width of what it returns, in pixels.
    """

    def __init__(self, index: ImageIndex, rows: NDArray[np.int64], image_size: int) -> None:
        self.index, self.rows, self.image_size = index, rows, image_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: list[int]) -> Batch:
        rows = self.rows[positions]
        pixels = np.stack([self._read(self.index.paths[row]) for row in rows])
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # NCHW to the eye, NHWC in memory: channels last
        return Batch(image, torch.from_numpy(self.index.labels[rows]), torch.from_numpy(rows))

    def _read(self, path: str) -> NDArray[np.uint8]:
        try:
            return to_square(read_rgb(self.index.root / path), self.image_size)
        except UnreadableImageError as error:
            raise UserError(f"cannot read image {self.index.root / path}: {error}") from error


class Loader:
    """A data loader that Lightning leaves as it is: sharing out over processes is the batches' own work.

    Args:
        dataset: Returns a batch for a list of positions.
        batches: The lists of positions, an epoch at a time.
        num_workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Put batches where a GPU can fetch them while it computes.
    """

    def __init__(self, dataset: Dataset[Batch], batches: EpochBatches, num_workers: int, pin_memory: bool) -> None:
        self.batch_sampler = batches
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            sampler=batches,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)
