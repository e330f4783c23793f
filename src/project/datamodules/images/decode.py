"""Image decoding and resizing."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from project.images import decode_pixels, read_bytes


def read_image(path: str | Path) -> Tensor:
    """Decode an image file to upright 8-bit RGB, uint8 (3, H, W).

    Raises:
        UnreadableImageError: the file cannot be opened or decoded.
    """
    return decode_image(read_bytes(path))


def decode_image(data: bytes) -> Tensor:
    """Decode an encoded image to upright 8-bit RGB, uint8 (3, H, W); see `decode_pixels`.

    Raises:
        UnreadableImageError: the data cannot be decoded.
    """
    return torch.from_numpy(decode_pixels(data)).permute(2, 0, 1)


def resize(image: Tensor, size: int) -> Tensor:
    """Resize uint8 (3, H, W) to (3, size, size), bilinear with antialiasing; within one gray level of Pillow."""
    if image.shape[1:] == (size, size):
        return image
    batch = image[None].contiguous(memory_format=torch.channels_last)  # has a fast path in torch
    return F.interpolate(batch, (size, size), mode="bilinear", antialias=True)[0]


def center_crop_resize(image: Tensor, size: int) -> Tensor:
    """Crop the largest center square of uint8 (3, H, W) and resize it to (3, size, size)."""
    _, height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[:, top : top + side, left : left + side], size)
