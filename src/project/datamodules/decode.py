"""From a file to pixels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]


class UnreadableImageError(Exception):
    """A file that cannot be decoded as an image; the message says why."""


def read_rgb(path: str | Path) -> Image.Image:
    """Decode a file to an upright 8-bit RGB image: first frame, EXIF orientation applied, transparency on white.

    Raises:
        UnreadableImageError: not an image, damaged, too large to be honest, or not readable.
    """
    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16-bit greyscale: Pillow would clip it to white
                return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def to_square(image: Image.Image, size: int) -> Pixels:
    """Bring the short side to `size` (antialiased), cut out the centre: uint8 (size, size, 3)."""
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(image)
