"""Every kind of file that turns up among images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.datamodules.decode import UnreadableImageError, read_rgb, to_square


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (200, 10, 20), (200, 10, 20)),
        ("L", 90, (90, 90, 90)),
        ("RGBA", (200, 10, 20, 0), (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
        ("P", 0, (0, 0, 0)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_png_modes(tmp_path: Path, mode: str, colour: object, expected: tuple[int, int, int]) -> None:
    Image.new(mode, (6, 5), colour).save(tmp_path / "x.png")  # type: ignore[arg-type]
    image = read_rgb(tmp_path / "x.png")
    assert image.mode == "RGB" and image.getpixel((2, 2)) == expected


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 128 * 256, dtype=np.uint16)).save(tmp_path / "x.png")
    assert read_rgb(tmp_path / "x.png").getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp", ".tif", ".gif", ".ppm"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 16), (255, 255, 255)).save(tmp_path / f"x{suffix}")
    assert read_rgb(tmp_path / f"x{suffix}").getpixel((5, 5)) == (255, 255, 255)


def test_cmyk_and_exif_orientation(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 4)).save(tmp_path / "c.jpg")
    assert read_rgb(tmp_path / "c.jpg").mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "e.jpg", exif=exif)
    assert read_rgb(tmp_path / "e.jpg").size == (4, 8)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UnreadableImageError):
        read_rgb(tmp_path / "x.png")


def test_truncated_and_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "x.jpg")
    whole = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_rgb(tmp_path / "half.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="bomb"):
        read_rgb(tmp_path / "x.jpg")


def test_to_square_cuts_the_centre_and_leaves_the_right_size_alone() -> None:
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 255
    assert (to_square(Image.fromarray(pixels), 4) == 255).all()
    exact = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    assert (to_square(Image.fromarray(exact), 8) == exact).all()
