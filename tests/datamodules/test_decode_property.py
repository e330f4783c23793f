"""Decoding of any combination of format, depth, channels, orientation and damage."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from project.images import UnreadableImageError, decode

Array = NDArray[Any]
ORIENTATION = 0x0112
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}
"""What a viewer does with an image for each value of the EXIF orientation."""
FORMATS = {  # dtypes, channels, and whether the format stores an orientation
    "png": (["uint8"], [1, 2, 3, 4], True),
    "png16": (["uint16"], [1, 2, 3, 4], False),
    "webp": (["uint8"], [3, 4], True),
    "tiff": (["uint8", "uint16", "float32", "int16", "uint32", "float64"], [1, 2, 3, 4, 5, 9], True),
    "npy": (["uint8", "uint16", "float32", "int16", "float64", "bool"], [1, 2, 3, 4, 5], False),
    "dcm": (["uint16", "int16"], [1], False),
    "bmp": (["uint8"], [1, 3], False),
    "heic": (["uint8"], [3], False),
    "jpeg": (["uint8"], [1, 3], True),
    "gif": (["uint8"], [1], False),
    "avif": (["uint8"], [3], False),
}
LOSSY = ("heic", "jpeg", "avif")


def encode(pixels: Array, file_format: str, orientation: int) -> bytes:
    """Encode an image (H, W, C); two and four channels are gray and RGB with transparency, except in TIFF and NumPy."""
    stream = io.BytesIO()
    channels = pixels.shape[2]
    single = pixels[..., 0] if channels == 1 else pixels
    if file_format == "png16":
        return bytes(imagecodecs.png_encode(single))
    if file_format == "npy":
        np.save(stream, pixels)
    elif file_format == "tiff":
        rgb = channels in (3, 4) and pixels.dtype.kind != "f"
        kind: dict[str, Any] = {"photometric": "rgb" if rgb else "minisblack", "planarconfig": "contig"}
        extra = channels - (3 if rgb else 1)
        kind |= {"extrasamples": ["unspecified"] * extra} if extra else {}
        tags = [(ORIENTATION, "H", 1, orientation, True)]
        tifffile.imwrite(stream, single, compression="zlib", extratags=tags, **kind)
    elif file_format == "dcm":
        stream.write(encode_dicom(pixels[..., 0]))
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options: dict[str, Any] = {"exif": exif} if FORMATS[file_format][2] else {}
        options |= {"lossless": True, "exact": True} if file_format == "webp" else {}
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        if file_format == "heic":
            import pillow_heif

            pillow_heif.register_heif_opener()
        name = {"heic": "HEIF"}.get(file_format, file_format.upper())
        Image.frombytes(mode, single.shape[1::-1], np.ascontiguousarray(single).tobytes()).save(stream, name, **options)
    return stream.getvalue()


def encode_dicom(pixels: Array) -> bytes:
    """Encode an image (H, W) with a rescale intercept of -1024 and a patient's name."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName = "Somebody"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = pixels.astype("<" + pixels.dtype.str[1:]).tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def expected_pixels(pixels: Array, file_format: str, orientation: int) -> Array:
    """Return the pixels of an undamaged, lossless file: upright, and of the dtype that their depth needs."""
    if file_format == "dcm":
        return pixels.astype(np.float32) - 1024
    upright = UPRIGHT[orientation if FORMATS[file_format][2] else 1](pixels)
    if pixels.dtype == bool:
        return upright * np.uint8(255)
    return upright if pixels.dtype in (np.uint8, np.uint16) else upright.astype(np.float32)


@st.composite
def images(draw: st.DrawFn) -> tuple[Array, str, int]:
    """Draw an image, a format that can store it, and an orientation."""
    file_format = draw(st.sampled_from([*sorted(FORMATS), "tiff", "tiff"]))  # which varies most
    dtypes, channels, _ = FORMATS[file_format]
    dtype, bands = np.dtype(draw(st.sampled_from(dtypes))), draw(st.sampled_from(channels))
    height, width = draw(st.integers(6, 20)), draw(st.integers(6, 20))
    random = np.random.default_rng(draw(st.integers(0, 100)))
    top = 2 if dtype.kind == "b" else 200 if dtype.itemsize == 1 else 30_000
    return random.integers(0, top, (height, width, bands)).astype(dtype), file_format, draw(st.integers(1, 8))


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    image=images(),
    wanted=st.sampled_from([0, 0, 0, 1, 3, 4]),
    damage=st.sampled_from(["none", "none", "none", "truncated", "changed"]),
    seed=st.integers(0, 1000),
)
def test_any_file_is_decoded_as_a_person_sees_it_or_is_unreadable(
    image: tuple[Array, str, int], wanted: int, damage: str, seed: int
) -> None:
    pixels, file_format, orientation = image
    channels = wanted or pixels.shape[2]
    data = bytearray(encode(pixels, file_format, orientation))
    random = np.random.default_rng(seed)
    if damage == "truncated":
        del data[int(random.integers(0, len(data))) :]
    elif damage == "changed":
        for at in random.integers(0, len(data), 4):
            data[at] = random.integers(256)
    has_alpha = file_format in ("png", "png16", "webp") and pixels.shape[2] in (2, 4)
    bands = pixels.shape[2]
    opaque = bands - has_alpha
    try:
        decoded, note = decode(bytes(data), channels)
    except UnreadableImageError as error:
        assert str(error)
        convertible = channels in (bands, opaque) or {channels, opaque} == {1, 3}
        assert damage != "none" or not convertible, (str(error), bands)
        assert damage != "none" or f"and data.channels is {channels}" in str(error)
        return
    assert decoded.ndim == 3 and decoded.shape[2] == channels and decoded.flags.c_contiguous
    assert decoded.dtype in (np.uint8, np.uint16, np.float32) and np.isfinite(decoded).all()
    if damage != "none":
        return
    expected = expected_pixels(pixels, file_format, orientation)
    assert decoded.shape[:2] == expected.shape[:2]
    if file_format in LOSSY:
        return
    assert decoded.dtype == expected.dtype
    if channels == bands:
        np.testing.assert_array_equal(decoded, expected)
    elif has_alpha:
        assert note == "transparency blended with white"
    elif bands == 1:
        np.testing.assert_array_equal(decoded, np.repeat(expected, 3, 2))
    else:
        luminance = expected.astype(float) @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(decoded[..., 0], luminance, atol=1, rtol=1e-4)
