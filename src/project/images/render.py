"""Showing images of any number of channels: grayscale for one or two of them, else the first three as RGB."""

from typing import Any

from numpy.typing import NDArray
from PIL import Image


def shown_bands(pixels: Any) -> Any:
    """Return the channels of an array or tensor (..., C, H, W) that are shown: the first three, or the first one."""
    return pixels[..., : 3 if pixels.shape[-3] >= 3 else 1, :, :]


def to_image(pixels: NDArray[Any]) -> Image.Image:
    """Return an image (C, H, W), uint8 or float in [0, 1], as a PIL image."""
    shown = shown_bands(pixels)
    if shown.dtype.kind == "f":
        shown = (shown * 255).round().astype("uint8")
    return Image.fromarray(shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0))
