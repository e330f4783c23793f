"""Dataset of images from files, packed pixels or shards, read one batch at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import get_worker_info
from typing_extensions import override

from project.datamodules.dataset import IndexedDataset
from project.datamodules.images.augment import apply, is_fixed
from project.datamodules.images.resize import fit_image
from project.datamodules.index import Index
from project.datamodules.loader import shared_memory
from project.datamodules.sampler import Request, seed_rng
from project.errors import UserError
from project.images import Pixels, UnreadableImageError, decode, read_bytes, to_dtype
from project.interface import Batch, ImageInput

LEVELS = 4095  # of the histograms of images of another depth than 8 bits
SAMPLE = 2000  # images that channel statistics are computed from: the error of a mean is far below one gray level


class Images(IndexedDataset):
    """A dataset of some rows of an index that returns a whole batch for a request.

    Images are uint8; those of another depth or value range are scaled to float32 in [0, 1].

    Args:
        index: The image index.
        rows: int64 (N,), rows of the index; a sample's position is its position in `rows`.
        inputs: Size, channels, fit, depth and value range of the images.
        transforms: Item transforms, seeded by (seed, epoch, row) if one of them is random.
        seed: Seed of the item transforms.
        pixels: Packed pixels in the files' dtype, (rows of the index, height, width, channels), used instead of reading
            images. The images of a batch are on the device of this tensor.
        read: Function that returns the encoded image of a row; by default, the content of its file.
    """

    def __init__(
        self,
        index: Index,
        rows: NDArray[np.int64],
        inputs: ImageInput,
        transforms: Sequence[nn.Module] = (),
        seed: int = 0,
        pixels: Pixels | Tensor | None = None,
        read: Callable[[int], bytes] | None = None,
    ) -> None:
        super().__init__(index, rows)
        self.inputs = inputs
        self.transforms, self.seed, self.pixels = transforms, seed, pixels
        self.read = read or self._read_file
        self.buffers: Sequence[Tensor] = ()
        self.buffer_shape = (*inputs.size, inputs.channels)
        self.dtype = torch.uint8 if inputs.is_8bit else torch.float32
        # Needless seeding would change the random state of this process, e.g. the initial weights of the network.
        self._is_random = not all(map(is_fixed, transforms))

    @override
    @property
    def on_device(self) -> bool:  # type: ignore[override]
        return isinstance(self.pixels, Tensor)

    def __getitem__(self, request: Request) -> Batch:
        rows = self.rows[request.positions]
        if isinstance(self.pixels, Tensor):
            image = self.inputs.prepare(self.pixels[torch.from_numpy(rows).to(self.pixels.device, non_blocking=True)])
        elif self.pixels is not None:
            image = self.inputs.prepare(torch.from_numpy(self.pixels[rows]))  # one read for the whole batch
        else:
            image = self._buffer(request)
            for position, row in enumerate(rows.tolist()):
                image[position] = self._load(row, request.epoch).permute(1, 2, 0)
        labels = torch.from_numpy(self.index.labels[rows])
        # Shape NCHW, stored as NHWC (channels last).
        return Batch(image.permute(0, 3, 1, 2), labels, torch.from_numpy(rows))

    def decoded(self, row: int) -> Tensor:
        """Return an upright image with its regions masked, in the dtype of the inputs, (C, H, W) of any size.

        Raises:
            UserError: The file is damaged or was removed.
        """
        try:
            pixels = to_dtype(decode(self.read(row), self.inputs.channels).pixels, self.inputs.dtype)
        except UnreadableImageError as error:
            name = f"{self.index.keys[row]} from the shards (damaged: write them again)"
            if self.read == self._read_file:
                name = f"{self.index.root / self.index.keys[row]} (damaged or removed since it was indexed)"
            raise UserError(f"cannot read image {name}: {error}") from error
        return self.index.hide(torch.from_numpy(pixels).permute(2, 0, 1), row)

    def fitted(self, row: int) -> Tensor:
        """Return an image in the size and dtype of the inputs, (C, height, width), without transforms."""
        if self.pixels is not None:
            return torch.as_tensor(self.pixels[row]).permute(2, 0, 1).cpu()
        return fit_image(self.decoded(row), self.inputs.size, self.inputs.fit)

    @override
    def raw(self, row: int, fitted: bool = True) -> Pixels:
        return np.asarray((self.fitted(row) if fitted else self.decoded(row)).contiguous())

    def content(self, rows: Sequence[int]) -> Tensor:
        """Return which pixels show the image rather than padding, bool (N, 1, height, width), by row of the index."""
        masks = []
        for row in rows:
            image = torch.ones_like(self.decoded(row)[:1], dtype=torch.uint8)
            for transform in self.transforms:
                image = transform(image)
            masks.append(fit_image(image, self.inputs.size, self.inputs.fit) > 0)
        return torch.stack(masks)

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return the mean and standard deviation of each channel, in [0, 1], of evenly spaced images."""
        positions, channels = self.even(SAMPLE), self.inputs.channels
        top = 255 if self.inputs.is_8bit else LEVELS
        counts = np.zeros((channels, top + 1), np.int64)  # histograms: exact, and much faster than sums of squares
        for first in range(0, len(positions), 50):
            pixels = self[Request(0, positions[first : first + 50])].inputs
            levels = (pixels if self.inputs.is_8bit else (pixels * top).round().int()).numpy()
            for channel in range(channels):
                counts[channel] += np.bincount(levels[:, channel].ravel(), minlength=top + 1)
        values, total = np.arange(top + 1) / top, counts.sum(1)
        mean, square = counts @ values / total, counts @ values**2 / total
        std = np.sqrt(np.maximum(square - mean**2, 0)).clip(1 / 255)  # avoids division by zero for constant channels
        return [round(x, 6) for x in mean.tolist()], [round(x, 6) for x in std.tolist()]

    def _buffer(self, request: Request) -> Tensor:
        """Return an uninitialized buffer for a batch, (N, height, width, channels)."""
        count = len(request.positions)
        if request.buffer is not None and count <= len(self.buffers[request.buffer]):
            return self.buffers[request.buffer][:count]
        if get_worker_info() is not None:
            return shared_memory(count, self.buffer_shape, self.dtype)
        return torch.empty(count, *self.buffer_shape, dtype=self.dtype)

    def _read_file(self, row: int) -> bytes:
        return read_bytes(self.index.root / self.index.keys[row])

    def _load(self, row: int, epoch: int) -> Tensor:
        if not self.transforms:
            return self.inputs.prepare(self.fitted(row))
        image = self.inputs.prepare(self.decoded(row))
        if self._is_random:
            seed_rng(self.seed, epoch, row)
        for transform in self.transforms:
            image = apply(transform, image)
        return fit_image(image, self.inputs.size, self.inputs.fit)
