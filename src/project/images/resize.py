"""Fitting images to the size of the network: crop, pad or stretch, with antialiased bilinear resizing, in NumPy.

The results are bitwise equal to those of torch in `project.datamodules.images.resize`, and for integers to those of
the exportable module in `project.deploy.raw`.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from project.interface import Fit

BLOCK = 8  # output pixels computed together, from the slice of input pixels that contributes to them


class Box(NamedTuple):
    """A rectangle in an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, array: Any) -> Any:
        """Return this part of an array or tensor whose last two dimensions are height and width."""
        return array[..., self.top : self.top + self.height, self.left : self.left + self.width]


def visible_part(height: int, width: int, size: tuple[int, int], fit: "Fit") -> Box:
    """Return the part of an image that the network sees: for `crop`, the largest centered part of its aspect ratio."""
    rows, columns = height, width
    if fit == "crop" and width * size[0] > height * size[1]:
        columns = max(1, height * size[1] // size[0])
    elif fit == "crop":
        rows = max(1, width * size[0] // size[1])
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


def content_box(height: int, width: int, size: tuple[int, int], fit: "Fit") -> Box:
    """Return the part of the network's input, (height, width) `size`, that shows the image: all of it unless padded."""
    rows, columns = size
    if fit == "pad" and width * size[0] > height * size[1]:
        rows = max(1, (2 * height * size[1] + width) // (2 * width))  # rounded
    elif fit == "pad":
        columns = max(1, (2 * width * size[0] + height) // (2 * height))
    return Box((size[0] - rows) // 2, (size[1] - columns) // 2, rows, columns)


def fit_pixels(pixels: NDArray[Any], size: tuple[int, int], fit: "Fit") -> NDArray[Any]:
    """Fit an image to the size of the network.

    Args:
        pixels: uint8, uint16 or float32 (H, W, C).
        size: Height and width.
        fit: How the image is brought to this size. Padding has the lowest value: 0, for float32 that of the image.

    Returns:
        The same dtype, (C, height, width).
    """
    height, width = pixels.shape[:2]
    image = visible_part(height, width, size, fit).of(pixels.transpose(2, 0, 1))
    content = content_box(height, width, size, fit)
    lowest = image.min() if image.dtype.kind == "f" else 0
    if image.shape[1:] != content[2:]:
        image = _resize(image, content.width)
        image = _resize(image.transpose(0, 2, 1), content.height).transpose(0, 2, 1)
    if content[2:] != size:
        padded = np.full((len(image), *size), lowest, image.dtype)
        content.of(padded)[...] = image
        image = padded
    return np.ascontiguousarray(image)


def _resize(image: NDArray[Any], size: int) -> NDArray[Any]:
    """Resize the last dimension; for integers, products and sums are exact in float64, in any order."""
    is_float = image.dtype.kind == "f"
    weight, unit = _weights(image.shape[-1], size, quantized=not is_float)
    result = np.empty((*image.shape[:-1], size), image.dtype)
    for first in range(0, size, BLOCK):
        block = weight[first : first + BLOCK]
        used = np.flatnonzero(block.any(0))
        window = slice(used[0], used[-1] + 1)
        sums = np.array(image[..., window], np.float64, order="C") @ block[:, window].T
        result[..., first : first + BLOCK] = sums if is_float else sums / unit + 0.5
    return result


@lru_cache(maxsize=4)  # small, as the weights for a large image take several MB
def _weights(side: int, size: int, quantized: bool) -> tuple[NDArray[np.float64], float]:
    """Return the weight of each input pixel in each output pixel, (size, side), and their common divisor.

    Quantized weights are integers of 16 bits, as in torch.
    """
    scale = side / size
    radius = max(scale, 1.0)
    position = np.arange(side, dtype=np.float64)
    center = (np.arange(size, dtype=np.float64)[:, None] + 0.5) * scale
    first = np.floor(center - radius + 0.5).clip(min=0)
    end = np.minimum(np.floor(center + radius + 0.5), side)
    weight = (1 - np.abs((position - center + 0.5) / radius)).clip(min=0) * ((position >= first) & (position < end))
    weight = weight / weight.sum(1, keepdims=True)
    if not quantized:
        return weight, 1.0
    bits = int((weight.max() * 2.0 ** np.arange(1, 23) + 0.5 < 2**15).sum())
    return np.floor(weight * 2.0**bits + 0.5), 2.0**bits
