"""Which image files there are, and their pixels; without torch, for programs that only run an exported model."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from project.errors import UserError

Pixels = NDArray[np.uint8]
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, whatever the name; Pillow knows others, of which some start programs."""
EXTENSIONS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_images(folder: Path, visited: list[str] | None = None) -> Iterator[str]:
    """Relative POSIX paths of the image files below a folder; hidden files and link loops are passed over.

    `visited` takes every folder looked into. One that may not be read is a UserError.
    """

    def deny(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error

    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=deny, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if visited is not None:
            visited.append(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = Path(here).relative_to(folder)
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield (prefix / name).as_posix()


class UnreadableImageError(Exception):
    """A file that cannot be decoded as an image; the message says why."""


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file, or raise an UnreadableImageError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def decode_pixels(data: bytes) -> Pixels:
    """Decode to upright 8-bit RGB, uint8 (H, W, 3): first frame, EXIF orientation applied, transparency on white.

    Upright RGB and gray JPEGs go through simplejpeg, which gives the pixels of Pillow in less time; everything else,
    and whatever is doubtful, goes through Pillow.

    Raises:
        UnreadableImageError: not an image, damaged, or too large to be honest.
    """
    pixels = _decode_simple_jpeg(data)
    if pixels is None:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as file:
                pixels = _decode_with_pillow(file)
        except MemoryError:
            raise
        except Exception as error:  # decoders meet damage in many ways: RuntimeError, TypeError, struct.error
            reason = "not an image" if "cannot identify image file" in str(error) else str(error)
            raise UnreadableImageError(reason or type(error).__name__) from error
    return pixels


def _decode_simple_jpeg(data: bytes) -> Pixels | None:
    if data[:3] != b"\xff\xd8\xff" or _may_have_exif(data):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if colors not in ("YCbCr", "Gray") or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(data)
    except ValueError:
        return None  # damaged, or only odd: Pillow is the judge
    return pixels


def _may_have_exif(jpeg: bytes) -> bool:
    """Whether there is EXIF, or anything odd, among the segments before the picture."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda":
        if jpeg[at + 4 : at + 9] == b"Exif\0":
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return jpeg[at : at + 2] != b"\xff\xda"


def _decode_with_pillow(file: Image.Image) -> Pixels:
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):  # grayscale of 16 bits: Pillow would clip it to white
        levels = np.asarray(image)
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise ValueError("pixels of 32 bits, whose black and white are not known: save it with 8 or 16 bits")
        image = Image.fromarray((levels.astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
