"""Formats that Pillow does not read, or not with all channels and levels: TIFF, 16-bit PNG, NumPy and DICOM.

Imported packages other than NumPy and Pillow are only needed by the format that they read.
"""

import io
import logging
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ALPHA = ((1,), (2,))  # values of the TIFF tag ExtraSamples: associated and unassociated alpha


class RawImage(NamedTuple):
    """An image with the channels and the depth of its file.

    Attributes:
        pixels: uint8, uint16 or float32, (H, W, C), upright.
        has_alpha: True if the last channel is transparency.
        note: What was left out, e.g. further pages.
    """

    pixels: NDArray[Any]
    has_alpha: bool = False
    note: str = ""


def read_scientific(data: bytes, channels: int) -> RawImage | None:
    """Read a file by its first bytes; return None for formats and files that Pillow reads without loss.

    Args:
        data: The content of the file.
        channels: If a TIFF has this number of grayscale pages, they are the channels.
    """
    if data.startswith(b"\x93NUMPY"):
        return _read_npy(data)
    if data[128:132] == b"DICM":
        return _read_dicom(data)
    if data.startswith(TIFF):
        return _read_tiff(data, channels)
    if data.startswith(b"\x89PNG") and data[24:25] == b"\x10":
        return _read_png16(data)
    return None


def _check_size(height: int, width: int, bands: int = 1) -> None:
    """Raise for a decompression bomb, or warn, by the limits of Pillow."""
    Image._decompression_bomb_check((width, height * max(1, bands // 3)))


def _to_depth(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels as uint8, uint16, or, for any other number, float32."""
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"the pixels are no real numbers but {pixels.dtype}")
    if pixels.dtype.kind == "b":
        return pixels * np.uint8(255)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(pixels.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):  # becomes infinite, which is reported
        return pixels.astype(np.float32)


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation, 1 to 8, to an image (H, W, C)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _read_npy(data: bytes) -> RawImage:
    """Read an array (H, W), (H, W, C) or, if its first dimension is smaller than its last, (C, H, W)."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if math.prod(shape) * dtype.itemsize > len(data):  # NumPy would allocate memory for it first
        raise ValueError(f"truncated: {len(data):,} bytes are not enough for an array {shape}")
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"expected an array (H, W), (H, W, C) or (C, H, W), got {array.shape}")
    if array.ndim == 2:
        array = array[..., None]
    elif array.shape[0] < array.shape[2]:
        array = array.transpose(1, 2, 0)
    return RawImage(_to_depth(array))


def _read_png16(data: bytes) -> RawImage:
    import imagecodecs

    with Image.open(io.BytesIO(data), formats=["PNG"]) as file:  # checks the size
        orientation = int(file.getexif().get(0x0112, 1))
    pixels = imagecodecs.png_decode(data)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return RawImage(_upright(pixels, orientation), has_alpha=pixels.shape[2] in (2, 4))


def _read_tiff(data: bytes, channels: int) -> RawImage | None:
    """Read a TIFF with more than 8 bits per channel, with more channels than colors, or with several pages."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        file = tifffile.TiffFile(io.BytesIO(data))
        every: list[Any] = [*file.pages]
        pages = [page for page in every if not (page.subfiletype or 0) & 1]  # 1: thumbnails
    except Exception:
        return None  # old or damaged: leave it to Pillow
    with file:
        page = pages[0]
        samples, extra = page.samplesperpixel, tuple(page.extrasamples)
        stacked = len(pages) == channels > 1 and all(
            one.samplesperpixel == 1 and one.shape == page.shape and one.dtype == page.dtype for one in pages
        )
        note = f"first of {len(pages)} pages" if len(pages) > 1 else ""
        has_alpha = samples - len(extra) in (1, 3) and extra in ALPHA
        colors = 4 if page.photometric == 5 else 3 if page.photometric in (2, 6, 8) else 1  # CMYK; RGB, YCbCr, Lab
        is_simple = page.bitspersample <= 8 and page.sampleformat == 1 and samples in (colors, colors + has_alpha)
        if is_simple and not stacked:
            return _by_pillow(data, note)
        layers = pages if stacked else [page]
        _check_size(page.imagelength, page.imagewidth, samples * len(layers))
        tag = page.tags.get(274)
        arrays = [_tiff_pixels(layer) for layer in layers]
    pixels = _upright(_to_depth(np.concatenate(arrays, 2)), int(tag.value) if tag else 1)
    return RawImage(pixels, has_alpha, f"{len(pages)} pages are the channels" if stacked else note)


def _by_pillow(data: bytes, note: str) -> RawImage | None:
    if not note:
        return None
    from project.images.decode import from_pillow

    with Image.open(io.BytesIO(data), formats=["TIFF"]) as file:
        return from_pillow(file)._replace(note=note)


def _tiff_pixels(page: Any) -> NDArray[Any]:
    """Return the pixels of a page, (H, W, C)."""
    pixels: NDArray[Any] = page.asarray()
    if page.axes == "SYX":
        pixels = pixels.transpose(1, 2, 0)
    elif page.axes == "YX":
        pixels = pixels[..., None]
    elif page.axes != "YXS":
        raise ValueError(f"the dimensions {page.axes} of the TIFF are not those of an image")
    if page.photometric == 0 and pixels.dtype.kind == "u":  # white is zero
        pixels = (2 ** int(page.bitspersample) - 1 - pixels).astype(pixels.dtype)
    return pixels


def _read_dicom(data: bytes) -> RawImage:
    """Read the first frame: rescaled, as float32; windowed values are in [0, 1]. Only pixels are read, no patient data.

    The rescale slope and intercept, or the modality lookup table, are applied first, then the first window or lookup
    table of values of interest. In MONOCHROME1, where low values are white, values are inverted.
    """
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
    from pydicom.pixels.utils import pixel_array

    dataset = pydicom.dcmread(io.BytesIO(data))
    frames = int(dataset.get("NumberOfFrames") or 1)
    _check_size(dataset.Rows, dataset.Columns, dataset.get("SamplesPerPixel", 1))
    pixels = pixel_array(dataset, index=0)  # RGB if it is in color
    note = f"first of {frames} frames" if frames > 1 else ""
    if pixels.ndim == 3:
        return RawImage(_to_depth(pixels), note=note)
    values = apply_modality_lut(pixels, dataset).astype(np.float64)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    if "WindowWidth" in dataset and "VOILUTSequence" not in dataset:
        values = _window(dataset, values)
    elif "VOILUTSequence" in dataset:
        table = dataset.VOILUTSequence[0]
        values = apply_voi_lut(values.astype(np.int64), dataset) / (2.0 ** int(table.LUTDescriptor[2]) - 1)
    elif inverted:
        low, high = apply_modality_lut(np.array([[0, 2 ** int(dataset.BitsStored) - 1]]), dataset)[0]
        values = low + high - values
        inverted = False
    return RawImage((1 - values if inverted else values).astype(np.float32)[..., None], note=note)


def _window(dataset: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the first window, DICOM PS3.3 C.11.2.1.2: to [0, 1]."""
    center, width = (np.atleast_1d(dataset[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
    center, width = float(center), float(width)
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-9)
    return ((values - center) / width + 0.5).clip(0, 1)
