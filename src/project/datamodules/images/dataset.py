"""Dataset of images from files, packed pixels or shards, read one batch at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, get_worker_info

from project.datamodules.images.augment import is_fixed
from project.datamodules.images.decode import center_crop_resize, decode_image
from project.datamodules.index import ImageIndex
from project.datamodules.loader import shared_memory
from project.datamodules.sampler import Request, seed_rng
from project.errors import UserError
from project.images import Pixels, UnreadableImageError, read_bytes
from project.interface import Batch

SAMPLE = 2000  # images that channel statistics are computed from: the error of a mean is far below one gray level


class Images(Dataset[Batch]):
    """A dataset of some rows of an index that returns a whole batch for a request.

    Args:
        index: The image index.
        rows: int64 (N,), rows of the index; a sample's position is its position in `rows`.
        image_size: Height and width of the images in pixels.
        transforms: Item transforms, seeded by (seed, epoch, row) if one of them is random.
        seed: Seed of the item transforms.
        pixels: Packed pixels, uint8 (rows of the index, image_size, image_size, 3), used instead of reading images. The
            images of a batch are on the device of this tensor.
        read: Function that returns the encoded image of a row; by default, the content of its file.
    """

    def __init__(
        self,
        index: ImageIndex,
        rows: NDArray[np.int64],
        image_size: int,
        transforms: Sequence[nn.Module] = (),
        seed: int = 0,
        pixels: Pixels | Tensor | None = None,
        read: Callable[[int], bytes] | None = None,
    ) -> None:
        self.index, self.rows, self.image_size = index, rows, image_size
        self.transforms, self.seed, self.pixels = transforms, seed, pixels
        self.read = read or self._read_file
        self.buffers: Sequence[Tensor] = ()
        self.buffer_shape = (image_size, image_size, 3)
        # Needless seeding would change the random state of this process, e.g. the initial weights of the network.
        self._is_random = not all(map(is_fixed, transforms))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request: Request) -> Batch:
        rows = self.rows[request.positions]
        if isinstance(self.pixels, Tensor):
            image = self.pixels[torch.from_numpy(rows).to(self.pixels.device, non_blocking=True)]
        elif self.pixels is not None:
            image = torch.from_numpy(self.pixels[rows])  # one read for the whole batch
        else:
            image = self._buffer(request)
            for position, row in enumerate(rows.tolist()):
                image[position] = self._decode(row, request.epoch).permute(1, 2, 0)
        labels = torch.from_numpy(self.index.labels[rows])
        # Shape NCHW, stored as NHWC (channels last).
        return Batch(image.permute(0, 3, 1, 2), labels, torch.from_numpy(rows))

    def even(self, count: int) -> list[int]:
        """Return up to `count` evenly spaced positions."""
        return [*map(int, np.linspace(0, len(self) - 1, min(count, len(self))).round())]

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return the mean and standard deviation of each RGB channel, in [0, 1], of evenly spaced images."""
        positions = self.even(SAMPLE)
        counts = np.zeros((3, 256), np.int64)  # histograms: exact, and much faster than sums of squares
        for first in range(0, len(positions), 50):
            pixels = self[Request(0, positions[first : first + 50])].inputs.numpy()
            for channel in range(3):
                counts[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
        levels, total = np.arange(256) / 255, counts.sum(1)
        mean, square = counts @ levels / total, counts @ levels**2 / total
        std = np.sqrt(np.maximum(square - mean**2, 0)).clip(1 / 255)  # avoids division by zero for constant channels
        return [round(x, 6) for x in mean.tolist()], [round(x, 6) for x in std.tolist()]

    def _buffer(self, request: Request) -> Tensor:
        """Return an uninitialized buffer for a batch, uint8 (N, image_size, image_size, 3)."""
        count = len(request.positions)
        if request.buffer is not None and count <= len(self.buffers[request.buffer]):
            return self.buffers[request.buffer][:count]
        if get_worker_info() is not None:
            return shared_memory(count, self.buffer_shape)
        return torch.empty(count, *self.buffer_shape, dtype=torch.uint8)

    def _read_file(self, row: int) -> bytes:
        return read_bytes(self.index.root / self.index.paths[row])

    def _decode(self, row: int, epoch: int) -> Tensor:
        try:
            image = self.index.hide(decode_image(self.read(row)), row)
        except UnreadableImageError as error:
            name = f"{self.index.paths[row]} from the shards (damaged: write them again)"
            if self.read == self._read_file:
                name = f"{self.index.root / self.index.paths[row]} (damaged or removed since it was indexed)"
            raise UserError(f"cannot read image {name}: {error}") from error
        if self._is_random:
            seed_rng(self.seed, epoch, row)
        for transform in self.transforms:
            image = transform(image)
        return center_crop_resize(image, self.image_size)
