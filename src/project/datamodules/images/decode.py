"""From a file to a tensor of the size that the net sees."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from project.images import decode_pixels, read_bytes


def read_image(path: str | Path) -> Tensor:
    """Decode a file; see `decode_image`.

    Raises:
        UnreadableImageError: also where the file cannot be opened.
    """
    return decode_image(read_bytes(path))


def decode_image(data: bytes) -> Tensor:
    """Decode to upright 8-bit RGB, uint8 (3, H, W), or raise an UnreadableImageError; see `decode_pixels`."""
    return torch.from_numpy(decode_pixels(data)).permute(2, 0, 1)


def resize(image: Tensor, size: int) -> Tensor:
    """Bring uint8 (3, H, W) to (3, size, size), bilinear with antialiasing; within one level of Pillow's."""
    if image.shape[1:] == (size, size):
        return image
    batch = image[None].contiguous(memory_format=torch.channels_last)  # the layout that torch has a fast path for
    return F.interpolate(batch, (size, size), mode="bilinear", antialias=True)[0]


def center_crop_resize(image: Tensor, size: int) -> Tensor:
    """Cut the largest square out of the center of uint8 (3, H, W) and bring it to (3, size, size)."""
    _, height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[:, top : top + side, left : left + side], size)
