"""Decoding of image files to pixels, with the number of channels and the depth that the network takes."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from project.errors import UserError, missing_package_error
from project.images.scientific import RawImage, read_scientific
from project.output import pluralize

if TYPE_CHECKING:
    from project.interface import PixelType

Pixels = NDArray[Any]
"""An image, uint8, uint16 or float32, (H, W, C) as decoded or (C, H, W) as the network takes it."""
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow may decode, regardless of the extension; it supports others, some by external programs."""
LUMINANCE = (19595, 38470, 7471)  # of red, green and blue, of 65536, as in Pillow (ITU-R 601-2)


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8, uint16 or float32, (H, W, channels).
        note: What was left out or changed, e.g. "transparency blended with white"; empty if nothing was.
    """

    pixels: Pixels
    note: str = ""


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


def decode(data: bytes, channels: int = 3) -> Decoded:
    """Decode an image file.

    The first frame is decoded, upright by its EXIF orientation. Grayscale is repeated for three channels, RGB becomes
    luminance for one, and transparency is blended with white unless it is one of the channels. Pixels have the depth
    of the file: uint8, uint16, or float32 for all other types. RGB and gray JPEGs without EXIF data are decoded by
    simplejpeg, which returns the same pixels as Pillow in less time.

    Args:
        data: The content of the file.
        channels: Number of channels to return.

    Raises:
        UnreadableImageError: Not an image, damaged, a decompression bomb, or of another number of channels.
    """
    pixels = _decode_simple_jpeg(data)
    if pixels is not None and channels == 3:
        return Decoded(pixels)
    try:
        raw = RawImage(pixels) if pixels is not None else read_scientific(data, channels) or _open(data)
        return _to_channels(raw, channels)
    except MemoryError:
        raise
    except ModuleNotFoundError as error:
        raise UnreadableImageError(str(missing_package_error(error))) from error
    except Exception as error:  # damaged files raise many types: RuntimeError, TypeError, struct.error
        reason = "not an image" if "cannot identify image file" in str(error) else str(error)
        raise UnreadableImageError(reason or type(error).__name__) from error


def to_dtype(pixels: Pixels, dtype: "PixelType") -> Pixels:
    """Convert integer pixels to another depth, full scale to full scale.

    Raises:
        UnreadableImageError: Integers cannot be compared with floats, whose scale is unknown.
    """
    if pixels.dtype == dtype:
        return pixels
    if pixels.dtype == np.uint8 and dtype == "uint16":
        return pixels * np.uint16(257)
    if pixels.dtype == np.uint16 and dtype == "uint8":
        return (pixels >> 8).astype(np.uint8)
    raise UnreadableImageError(f"{pixels.dtype} pixels, where {dtype} is expected: the scales are not comparable")


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


def _open(data: bytes) -> RawImage:
    formats: tuple[str, ...] = FORMATS
    if data[4:8] == b"ftyp" and b"avi" not in data[8:32]:  # HEIF, whose container AVIF shares
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats = ("HEIF",)
    with Image.open(io.BytesIO(data), formats=formats) as file:
        note = "first frame of an animation" if getattr(file, "is_animated", False) else ""
        return from_pillow(file)._replace(note=note)


def from_pillow(file: Image.Image) -> RawImage:
    """Return the pixels of a PIL image, upright."""
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image)
        is_16bit = image.mode != "F" and pixels.min() >= 0 and pixels.max() <= 65535
        return RawImage(pixels.astype(np.uint16 if is_16bit else np.float32)[..., None])
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return RawImage(np.array(image.convert("L"))[..., None])
    if image.mode == "RGBX":
        return RawImage(np.array(image))
    if image.mode == "LA":
        return RawImage(np.array(image), has_alpha=True)
    if image.mode in ("RGBA", "PA", "La", "RGBa") or "transparency" in image.info:
        return RawImage(np.array(image.convert("RGBA")), has_alpha=True)
    return RawImage(np.array(image.convert("RGB")))


def _to_channels(image: RawImage, channels: int) -> Decoded:
    """Convert an image to a number of channels, unless channels would be lost or invented."""
    pixels, has_alpha, note = image
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError("it contains NaN or infinite pixels: replace them")
    if pixels.shape[2] != channels and has_alpha:
        full = 255 if pixels.dtype == np.uint8 else 65535 if pixels.dtype == np.uint16 else 1.0
        if pixels[..., -1].min() < full:
            note = note or "transparency blended with white"
        pixels = _blend_with_white(pixels, full)
    bands = pixels.shape[2]
    if bands == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, 2)
    elif bands == 3 and channels == 1:
        pixels = _luminance(pixels)
    elif bands != channels:
        raise ValueError(f"{pluralize(bands, 'channel')}, and data.channels is {channels}")
    return Decoded(np.ascontiguousarray(pixels), note)


def _blend_with_white(pixels: Pixels, full: float) -> Pixels:
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels).convert("RGBA")
        blended = np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
        return blended if pixels.shape[2] == 4 else blended[..., :1]
    alpha = pixels[..., -1:] / full
    blended = pixels[..., :-1] * alpha + full * (1 - alpha)
    return (blended.round() if pixels.dtype.kind == "u" else blended).astype(pixels.dtype)


def _luminance(pixels: Pixels) -> Pixels:
    total = (pixels.astype(np.float64) * LUMINANCE).sum(2, keepdims=True) / 2**16
    rounded: Pixels = np.floor(total + 0.5) if pixels.dtype.kind == "u" else total
    return rounded.astype(pixels.dtype)


def to_pixels(sample: Any, channels: int = 3, dtype: "PixelType" = "uint8") -> Pixels:
    """Return an image, (H, W, channels) of the given dtype.

    Args:
        sample: A file, a PIL image, an array (H, W, C) or (H, W), or a tensor (C, H, W) or (H, W), of the given dtype;
            or, if that is an integer type, of another integer type or float in [0, 1].
        channels: Number of channels to return.
        dtype: Type of the pixels to return.

    Raises:
        UserError: The file cannot be read.
        ValueError: The array or tensor has another shape, dtype or range.
    """
    try:
        if isinstance(sample, str | Path):
            return to_dtype(decode(read_bytes(sample), channels).pixels, dtype)
        if isinstance(sample, Image.Image):
            return to_dtype(_to_channels(from_pillow(sample), channels).pixels, dtype)
    except (UnreadableImageError, ValueError) as error:
        raise UserError(f"cannot read image {sample}: {error}") from error
    is_tensor = hasattr(sample, "detach")
    array = sample.detach().cpu().numpy() if is_tensor else np.asarray(sample)
    pixels = array.transpose(1, 2, 0) if is_tensor and array.ndim == 3 else array
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = np.repeat(pixels, 3, 2) if pixels.ndim == 3 and pixels.shape[2] == 1 and channels == 3 else pixels
    if pixels.ndim != 3 or pixels.shape[2] != channels or not pixels.size:
        raise ValueError(
            f"expected an array (H, W, {channels}) or a tensor ({channels}, H, W), got shape {tuple(array.shape)}"
        )
    if dtype == "float32":
        return np.ascontiguousarray(pixels, np.float32)
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"expected floats in [0, 1], got {pixels.min():g} to {pixels.max():g}")
        pixels = (pixels * np.iinfo(dtype).max).round().astype(dtype)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected {dtype} or float pixels, got {pixels.dtype}")
    return np.ascontiguousarray(to_dtype(pixels, dtype))
