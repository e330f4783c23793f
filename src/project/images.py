"""Find, decode, crop and resize images. Does not import torch, so that exported models run without it."""

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from project.errors import UserError

Pixels = NDArray[np.uint8]
BLOCK = 8  # output pixels computed together, from the slice of input pixels that contributes to them
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats to decode, regardless of the extension; Pillow supports others, some of which run external programs."""
EXTENSIONS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Extensions of image files, in lower case."""


def find_images(folder: Path, visited: list[str] | None = None) -> Iterator[str]:
    """Yield the relative POSIX paths of all image files below a folder, skipping hidden files and symlink loops.

    Args:
        folder: The folder to search, following symbolic links.
        visited: List to which every searched folder is appended.

    Raises:
        UserError: A folder cannot be read.
    """

    def raise_user_error(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error

    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=raise_user_error, followlinks=True):
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
    """A file that cannot be read or decoded as an image; the message is the reason."""


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises:
        UnreadableImageError: The file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def decode_pixels(data: bytes) -> Pixels:
    """Decode an image to RGB, uint8 (H, W, 3).

    The first frame is decoded, with EXIF orientation applied and transparency composited on white. RGB and gray JPEGs
    without EXIF data are decoded by simplejpeg, which returns the same pixels as Pillow in less time; all others by
    Pillow.

    Raises:
        UnreadableImageError: Not an image, damaged, or a decompression bomb.
    """
    pixels = _decode_simple_jpeg(data)
    if pixels is None:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as file:
                pixels = _decode_with_pillow(file)
        except MemoryError:
            raise
        except Exception as error:  # damaged files raise many types: RuntimeError, TypeError, struct.error
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
        return None  # damaged or unusual: leave it to Pillow
    return pixels


def _may_have_exif(jpeg: bytes) -> bool:
    """Return True if the segments before the image data contain EXIF data or cannot be parsed."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda":
        if jpeg[at + 4 : at + 9] == b"Exif\0":
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return jpeg[at : at + 2] != b"\xff\xda"


def _decode_with_pillow(file: Image.Image) -> Pixels:
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):  # 16-bit grayscale: Pillow would clip it to white
        levels = np.asarray(image)
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit pixels of unknown value range: save it with 8 or 16 bits")
        image = Image.fromarray((levels.astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def to_pixels(sample: Any) -> Pixels:
    """Return an image as RGB, uint8 (H, W, 3).

    Args:
        sample: A file, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W) or (H, W), as uint8 in [0, 255]
            or float in [0, 1].

    Raises:
        UserError: The file cannot be read.
        ValueError: The array or tensor has another shape, dtype or range.
    """
    if isinstance(sample, str | Path):
        try:
            return decode_pixels(read_bytes(sample))
        except UnreadableImageError as error:
            raise UserError(f"cannot read image {sample}: {error}") from error
    if isinstance(sample, Image.Image):
        return _decode_with_pillow(sample)
    array = sample.detach().cpu().numpy() if hasattr(sample, "detach") else np.asarray(sample)
    pixels = array.transpose(1, 2, 0) if hasattr(sample, "detach") and array.ndim == 3 else array
    pixels = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"expected an array (H, W, 3) or a tensor (3, H, W), got shape {tuple(array.shape)}")
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"expected floats in [0, 1], got {pixels.min():g} to {pixels.max():g}")
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"expected uint8 or float pixels, got {pixels.dtype}")
    return np.ascontiguousarray(pixels)


def center_crop(pixels: Pixels) -> Pixels:
    """Return the largest centered square of an image, uint8 (H, W, 3)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def center_crop_resize(pixels: Pixels, size: int) -> Pixels:
    """Crop the largest centered square of an image, uint8 (H, W, 3), and resize it to uint8 (3, size, size)."""
    # Bitwise equal to the resize of torch in `project.datamodules.images.decode`.
    image = center_crop(pixels).transpose(2, 0, 1)
    if image.shape[1] != size:
        image = _resize(_resize(image, size).transpose(0, 2, 1), size).transpose(0, 2, 1)
    return np.ascontiguousarray(image)


def _resize(image: Pixels, size: int) -> Pixels:
    """Resize the last dimension; products and sums are integers, which float64 holds exactly in any order."""
    weight, unit = _weights(image.shape[-1], size)
    result = np.empty((*image.shape[:-1], size), np.uint8)
    for first in range(0, size, BLOCK):
        block = weight[first : first + BLOCK]
        used = np.flatnonzero(block.any(0))
        window = slice(used[0], used[-1] + 1)
        sums = np.array(image[..., window], np.float64, order="C") @ block[:, window].T
        result[..., first : first + BLOCK] = sums / unit + 0.5
    return result


@lru_cache(maxsize=4)  # small, as the weights for a large image take several MB
def _weights(side: int, size: int) -> tuple[NDArray[np.float64], float]:
    """Return the weight of each input pixel in each output pixel, integers (size, side), and their common divisor."""
    scale = side / size
    radius = max(scale, 1.0)
    position = np.arange(side, dtype=np.float64)
    center = (np.arange(size, dtype=np.float64)[:, None] + 0.5) * scale
    first = np.floor(center - radius + 0.5).clip(min=0)
    end = np.minimum(np.floor(center + radius + 0.5), side)
    weight = (1 - np.abs((position - center + 0.5) / radius)).clip(min=0) * ((position >= first) & (position < end))
    weight = weight / weight.sum(1, keepdims=True)
    bits = int((weight.max() * 2.0 ** np.arange(1, 23) + 0.5 < 2**15).sum())
    return np.floor(weight * 2.0**bits + 0.5), 2.0**bits
