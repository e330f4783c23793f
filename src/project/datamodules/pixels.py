"""The images of a data set as pixels in memory, where they fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from project.datamodules.augment import is_fixed
from project.datamodules.index import ImageIndex
from project.datamodules.packed import decode_all, skip_unreadable
from project.images import Pixels
from project.machine import memory


class PixelStore:
    """Looks at every image once, and holds the pixels of all where they fit.

    Args:
        limit: Gigabytes that they may take; None for a quarter of the machine's memory.
        folder: Where they are packed.

    Attributes:
        packed: uint8 (N, size, size, 3), a row of the index each; None where they are read from their files.
        content: uint64 (N,), stands for the bytes of each file; None until something was looked at.
    """

    def __init__(self, limit: float | None, folder: Path) -> None:
        self._limit, self._folder = memory() / 4 if limit is None else limit * 1e9, folder
        self.packed: Pixels | None = None
        self.content: NDArray[np.uint64] | None = None
        self._on_device: Tensor | None = None

    def take(
        self, index: ImageIndex, size: int, transforms: Sequence[nn.Module], on_corrupt: Literal["error", "skip"]
    ) -> ImageIndex:
        """Decode the images of an index; returns it without those that cannot be read.

        Args:
            index: The images.
            size: Height and width to bring them to, in pixels.
            transforms: Item transforms; with one that draws at random no pixels are held.
            on_corrupt: What an unreadable image does.

        Raises:
            UserError: see `decode_all` and `skip_unreadable`.
        """
        fixed = [transform for transform in transforms if is_fixed(transform)]
        fits = len(fixed) == len(transforms) and len(index.paths) * size**2 * 3 <= self._limit
        decoded = decode_all(index, size, fixed, fits, self._folder)
        self.packed, self._on_device = decoded.pixels if fits else None, None
        self.content = decoded.content
        return skip_unreadable(index, decoded.unreadable, on_corrupt)

    def near(self, device: torch.device) -> Pixels | Tensor | None:
        """The pixels; on a GPU where they take at most a quarter of its memory, so that none has to be sent."""
        if self.packed is None or device.type != "cuda":
            return self.packed
        if self._on_device is None and self.packed.nbytes <= torch.cuda.mem_get_info(device)[1] / 4:
            self._on_device = torch.from_numpy(self.packed).to(device)
        return self.packed if self._on_device is None else self._on_device

    def __str__(self) -> str:
        return "packed pixels" + (" on the device" if self._on_device is not None else "")
