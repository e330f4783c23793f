"""Images of an index, from their files or from the packed one, a batch at a time."""

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

SAMPLE = 2000  # images that the statistics are taken from: a channel mean is then wrong by far less than a gray level


class Images(Dataset[Batch]):
    """Images of some rows of an index; asked for a list of positions, it returns a whole batch.

    What item transforms draw is a function of (seed, epoch, row). Where the packed `pixels` are given, uint8
    (N, image_size, image_size, 3), a row of the index each, nothing else is read; as a tensor they may lie on another
    device, and the batches' images then do too. `read` gives the encoded image at a row; by default its file.
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
        self.places: Sequence[Tensor] = ()
        self.buffer_shape = (image_size, image_size, 3)
        # Seeding where nothing is drawn would change what this process draws next, such as the weights of the net.
        self._draws = not all(map(is_fixed, transforms))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request: Request) -> Batch:
        rows = self.rows[request.positions]
        if isinstance(self.pixels, Tensor):
            image = self.pixels[torch.from_numpy(rows).to(self.pixels.device, non_blocking=True)]
        elif self.pixels is not None:
            image = torch.from_numpy(self.pixels[rows])  # one read for the whole batch
        else:
            image = self._place(request)
            for place, row in enumerate(rows.tolist()):
                image[place] = self._decode(row, request.epoch).permute(1, 2, 0)
        labels = torch.from_numpy(self.index.labels[rows])
        # NCHW to the eye, NHWC in memory: channels last.
        return Batch(image.permute(0, 3, 1, 2), labels, torch.from_numpy(rows))

    def even(self, count: int) -> list[int]:
        """Return positions of up to `count` images, evenly spaced."""
        return [*map(int, np.linspace(0, len(self) - 1, min(count, len(self))).round())]

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each RGB channel, in [0, 1], over an even sample."""
        sample = self.even(SAMPLE)
        counts = np.zeros((3, 256), np.int64)  # of each level: exact, and far less work than sums of squares
        for first in range(0, len(sample), 50):
            pixels = self[Request(0, sample[first : first + 50])].inputs.numpy()
            for channel in range(3):
                counts[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
        levels, total = np.arange(256) / 255, counts.sum(1)
        mean, square = counts @ levels / total, counts @ levels**2 / total
        std = np.sqrt(np.maximum(square - mean**2, 0)).clip(1 / 255)  # a constant channel must not divide by zero
        return [round(x, 6) for x in mean.tolist()], [round(x, 6) for x in std.tolist()]

    def _place(self, request: Request) -> Tensor:
        """uint8 (N, image_size, image_size, 3), not yet filled."""
        count = len(request.positions)
        if request.place is not None and count <= len(self.places[request.place]):
            return self.places[request.place][:count]
        if get_worker_info() is not None:
            return shared_memory(count, self.buffer_shape)
        return torch.empty(count, *self.buffer_shape, dtype=torch.uint8)

    def _read_file(self, row: int) -> bytes:
        return read_bytes(self.index.root / self.index.paths[row])

    def _decode(self, row: int, epoch: int) -> Tensor:
        try:
            image = self.index.hide(decode_image(self.read(row)), row)
        except UnreadableImageError as error:
            name = f"{self.index.paths[row]} from the shards (damaged: write them anew)"
            if self.read == self._read_file:
                name = f"{self.index.root / self.index.paths[row]} (damaged, or gone since the images were found)"
            raise UserError(f"cannot read image {name}: {error}") from error
        if self._draws:
            seed_rng(self.seed, epoch, row)
        for transform in self.transforms:
            image = transform(image)
        return center_crop_resize(image, self.image_size)
