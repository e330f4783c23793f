"""Decoding of image formats, modes and damaged files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from project.images import UnreadableImageError, decode, fit_pixels, read_bytes


def read_image(path: Path, channels: int = 3) -> NDArray[np.generic]:
    """Return the pixels of a file, (C, H, W)."""
    return decode(read_bytes(path), channels).pixels.transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (200, 10, 20), (200, 10, 20)),
        ("L", 90, (90, 90, 90)),
        ("RGBA", (200, 10, 20, 0), (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
        ("P", 0, (0, 0, 0)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_png_modes(tmp_path: Path, mode: str, color: object, expected: tuple[int, int, int]) -> None:
    Image.new(mode, (6, 5), color).save(tmp_path / "x.png")  # type: ignore[arg-type]
    image = read_image(tmp_path / "x.png")
    assert image.shape == (3, 5, 6) and image[:, 2, 2].tolist() == list(expected)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("x.png", np.array([[0, 900], [40_000, 65_535]], np.uint16)),
        ("x.tif", np.array([[0.5, -3.0], [1e6, 2.0]], np.float32)),
        ("y.tif", np.array([[0, 70_000], [1, 2]], np.int32)),
    ],
)
def test_deep_images_keep_their_values(tmp_path: Path, name: str, pixels: NDArray[np.generic]) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    image = read_image(tmp_path / name, channels=1)
    assert image.dtype == ("uint16" if pixels.dtype == np.uint16 else "float32")
    assert np.array_equal(image[0], pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp", ".tif", ".gif", ".ppm"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 16), (255, 255, 255)).save(tmp_path / f"x{suffix}")
    assert (read_image(tmp_path / f"x{suffix}") == 255).all()


def test_cmyk_and_exif_orientation(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 4)).save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg").shape == (3, 4, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "e.jpg", exif=exif)
    assert read_image(tmp_path / "e.jpg").shape == (3, 8, 4)


def test_orientation_behind_a_large_color_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "x.jpg", exif=exif, icc_profile=bytes(100_000))
    jpeg = (tmp_path / "x.jpg").read_bytes()
    first, end = jpeg.index(b"\xff\xe1"), jpeg.index(b"\xff\xe2")
    last = jpeg.index(b"\xff\xdb")
    (tmp_path / "x.jpg").write_bytes(jpeg[:first] + jpeg[end:last] + jpeg[first:end] + jpeg[last:])
    assert read_image(tmp_path / "x.jpg").shape == (3, 8, 4)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_files_that_are_not_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "x.png")


def test_truncated_images_and_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "x.jpg")
    complete = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(complete[: len(complete) // 2])
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(tmp_path / "half.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="bomb"):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("suffix", ["avif", "jpg", "tif"])
def test_damaged_files_are_decoded_or_unreadable(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "somebody", 0x829A: (1, 50)})
    Image.fromarray(smooth(32, 32)).save(tmp_path / f"x.{suffix}", exif=exif)
    good = (tmp_path / f"x.{suffix}").read_bytes()
    rng, unreadable = np.random.default_rng(0), 0
    for _ in range(200):
        data = bytearray(good)
        for at in rng.integers(0, min(len(data), 600), 6):
            data[at] = rng.integers(256)
        try:
            decode(bytes(data))
        except UnreadableImageError as error:
            unreadable += bool(str(error))
    assert unreadable > 10


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_image(tmp_path / "missing.png")


def test_animated_gif_is_read_as_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "x.gif")[:, 0, 0].tolist() == [255, 0, 0]


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_pixels_match_pillow(tmp_path: Path, mode: str, subsampling: int) -> None:
    Image.fromarray(smooth(96, 120)).convert(mode).save(tmp_path / "x.jpg", quality=85, subsampling=subsampling)
    expected = np.asarray(Image.open(tmp_path / "x.jpg").convert("RGB"))
    assert (read_image(tmp_path / "x.jpg").transpose(1, 2, 0) == expected).all()


@pytest.mark.parametrize("size", [16, 33, 96, 150])
def test_resize_matches_pillow_within_one_level(size: int) -> None:
    pixels = smooth(96, 96)
    expected = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    ours = fit_pixels(pixels, (size, size), "crop").transpose(1, 2, 0)
    assert np.abs(ours - expected).max() <= 1
