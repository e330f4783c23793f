"""The square that a model sees of a picture, in numpy: `project.deploy.raw.square` without torch, to the last bit."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from project.images import Pixels

BLOCK = 8  # pixels of the result that are computed together, from the few of the line that they depend on


def center_crop(pixels: Pixels) -> Pixels:
    """The largest square in the middle of uint8 (H, W, 3)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def center_crop_resize(pixels: Pixels, size: int) -> Pixels:
    """Cut the largest square out of the middle of uint8 (H, W, 3) and bring it to uint8 (3, size, size)."""
    picture = center_crop(pixels).transpose(2, 0, 1)
    if picture.shape[1] != size:
        picture = _resize(_resize(picture, size).transpose(0, 2, 1), size).transpose(0, 2, 1)
    return np.ascontiguousarray(picture)


def _resize(lines: Pixels, size: int) -> Pixels:
    """Bring the last dimension to a size; products and sums are whole numbers, exact in float64 in any order."""
    weight, unit = _weights(lines.shape[-1], size)
    result = np.empty((*lines.shape[:-1], size), np.uint8)
    for first in range(0, size, BLOCK):
        block = weight[first : first + BLOCK]
        used = np.flatnonzero(block.any(0))
        near = slice(used[0], used[-1] + 1)
        sums = np.array(lines[..., near], np.float64, order="C") @ block[:, near].T
        result[..., first : first + BLOCK] = sums / unit + 0.5
    return result


@lru_cache(maxsize=4)  # few, as those of a large picture take some MB
def _weights(side: int, size: int) -> tuple[NDArray[np.float64], float]:
    """What each pixel of a line adds to each one of the result, (size, side), and the unit it is counted in."""
    scale = side / size
    reach = max(scale, 1.0)
    place = np.arange(side, dtype=np.float64)
    center = (np.arange(size, dtype=np.float64)[:, None] + 0.5) * scale
    first = np.floor(center - reach + 0.5).clip(min=0)
    end = np.minimum(np.floor(center + reach + 0.5), side)
    weight = (1 - np.abs((place - center + 0.5) / reach)).clip(min=0) * ((place >= first) & (place < end))
    weight = weight / weight.sum(1, keepdims=True)
    bits = int((weight.max() * 2.0 ** np.arange(1, 23) + 0.5 < 2**15).sum())
    return np.floor(weight * 2.0**bits + 0.5), 2.0**bits
