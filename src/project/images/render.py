"""Display of images with any number of channels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_image(pixels: NDArray[Any]) -> Image.Image:
    """Return an image, uint8 or float in [0, 1] (C, H, W), as RGB: its first three channels, or else the first in gray.

    See `describe_shown`, which says what is not shown.
    """
    if pixels.dtype.kind == "f":
        pixels = (pixels * 255).round().astype(np.uint8)
    if len(pixels) < 3:
        return Image.fromarray(np.ascontiguousarray(pixels[0])).convert("RGB")
    return Image.fromarray(np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))


def describe_shown(channels: int) -> str:
    """Return which channels `to_image` shows, e.g. for a caption; empty if all are shown."""
    if channels in (1, 3):
        return ""
    return "channel 1 of 2 is shown" if channels == 2 else f"channels 1 to 3 of {channels} are shown as RGB"
