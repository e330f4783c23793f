"""Masked regions are applied wherever images are read, and no metadata of images is written to any output."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from project.cli import main
from project.cli.commands import commands
from project.datamodules import ImageDataModule
from project.datamodules.images.masks import Masks
from project.errors import UserError
from tests.conftest import QUICK, fit

SECRETS = (b"PLANTEDMAKE", b"PLANTEDCOMMENT", b"PLANTEDGPS", b"PLANTEDTHUMBNAIL")


def photographs(root: Path) -> None:
    """Write two classes of rotated 40 x 30 JPEGs with EXIF, GPS and a comment; the top left is white."""
    for name, level in {"dark": 40, "light": 120}.items():
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((40, 30, 3), level + number, np.uint8)
            pixels[:10, :10] = 255
            image = Image.fromarray(np.rot90(pixels).copy())  # upright after EXIF orientation
            exif = Image.Exif()
            exif[274], exif[271] = 6, SECRETS[0].decode()
            exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.6), 27: SECRETS[2]})
            exif.get_ifd(0x8769)[37510] = SECRETS[3]
            image.save(root / name / f"{number}.jpg", exif=exif, comment=SECRETS[1], quality=95)


def module(root: Path, cache: Path, table: Path | None, by: str = "fill", **more: object) -> ImageDataModule:
    data = ImageDataModule(
        str(root), image_size=30, cache_dir=str(cache), mask_boxes=table and str(table), mask_by=by, **more  # type: ignore[arg-type]
    )  # fmt: skip
    data.setup("fit")
    return data


def boxes(file: Path, *rows: str) -> Path:
    file.write_text("path,left,top,right,bottom\n" + "\n".join(rows) + "\n")
    return file


def image_of(data: ImageDataModule, path: str) -> torch.Tensor:
    for split in ("train", "val", "test"):
        batch = data.sample(1000, split)  # type: ignore[arg-type]
        for image, row in zip(batch.inputs, batch.index.tolist(), strict=True):
            if data.path(row) == path:
                return image
    raise AssertionError(path)


@pytest.mark.parametrize("limit", [None, 0.0])
def test_regions_of_upright_images_are_masked_packed_or_not(tmp_path: Path, limit: float | None) -> None:
    photographs(tmp_path / "images")
    table = boxes(tmp_path / "boxes.csv", "dark/3.jpg,0,0,10,15", "dark/3.jpg,20,35,30,40")
    plain = module(tmp_path / "images", tmp_path / "cache", None, pack_limit=limit, num_workers=0)
    filled = module(tmp_path / "images", tmp_path / "cache", table, pack_limit=limit, num_workers=0)
    # 40 x 30: the square in the middle begins at row 5.
    assert image_of(plain, "dark/3.jpg")[:, :4, :8].min() > 240
    hidden = image_of(filled, "dark/3.jpg")
    assert (hidden[:, :10, :10] == 128).all() and (hidden[:, 10:30, 10:] != 128).all()
    assert torch.equal(image_of(filled, "dark/4.jpg"), image_of(plain, "dark/4.jpg"))
    blurred = module(tmp_path / "images", tmp_path / "cache", table, "blur", pack_limit=limit, num_workers=0)
    soft = image_of(blurred, "dark/3.jpg")[:, :10, :10].float()
    assert 40 < soft.mean() < 255 and (soft != hidden[:, :10, :10]).any()


def test_blur_downsamples_to_4x4_pixels(tmp_path: Path) -> None:
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    masks = Masks(boxes(tmp_path / "boxes.csv", "a.png,0,0,64,64"), "blur", ["a.png"])
    other = image.clone()
    other[:, :16, :16] = other[:, :16, :16].flip(1, 2)  # within one of the 4x4 pixels
    assert torch.equal(masks.hide(image, "a.png"), masks.hide(other, "a.png"))


def test_blur_of_small_regions(tmp_path: Path) -> None:
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    masks = Masks(boxes(tmp_path / "boxes.csv", "a.png,0,0,4,4", "a.png,10,10,50,13"), "blur", ["a.png"])
    hidden = masks.hide(image, "a.png").int()
    assert (hidden[:, :4, :4] - hidden[:, :1, :1]).abs().max() <= 1, "except for rounding"
    assert (hidden[:, 10:13, 10:50] - hidden[:, 10:11, 10:50]).abs().max() <= 1, "no lines remain in a narrow region"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,left,top,right\n", "no column 'bottom'"),
        ("path,left,top,right,bottom\nnobody.jpg,0,0,1,1\n", "1 images that are not in the dataset, e.g. nobody.jpg"),
        ("path,left,top,right,bottom\ndark/1.jpg,5,0,5,1\n", "line 2: a region needs"),
        ("path,left,top,right,bottom\ndark/1.jpg,a,0,5,1\n", "line 2: edges must be integers"),
        ("path,left,top,right,bottom\ndark/1.jpg,0,0,31,10\n", "exceeds dark/1.jpg, which has 30 x 40 pixels"),
    ],
)
def test_invalid_tables(tmp_path: Path, text: str, message: str) -> None:
    photographs(tmp_path / "images")
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        module(tmp_path / "images", tmp_path / "cache", tmp_path / "boxes.csv")


def test_a_run_masks_its_dataset_but_not_other_folders(
    here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    photographs(here / "images")
    photographs(here / "others")
    table = boxes(here / "boxes.csv", "dark/3.jpg,0,0,10,15")
    main(fit(here / "images", "--data.mask_boxes", str(table)))
    main(["test", "--ckpt_path", "best", *QUICK])
    main(["predict", "--ckpt_path", "best", "--data.root", str(here / "others" / "light"), *QUICK])
    assert "not in the dataset" in failing(["predict", "--ckpt_path", "best", "--data.root", "others/light",
                                   "--data.mask_boxes", str(table), *QUICK])  # fmt: skip


def written(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_no_metadata_is_written_to_any_output(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "photographs"
    photographs(source)
    planted = (source / "dark/0.jpg").read_bytes()
    assert all(secret in planted for secret in SECRETS)
    main(["shard", str(source), "shards", "--mask_boxes", str(boxes(tmp_path / "boxes.csv", "dark/0.jpg,0,0,10,10"))])
    main(fit(source, "--test_after_fit", "true"))
    main(["predict", "--ckpt_path", "best", "--data.root", str(source), *QUICK])
    for name, *more in (["explain", "--images", "4"], ["export"]):
        if name in commands():
            main([name, "--ckpt_path", "logs/run/version_0/checkpoints/best.ckpt", *more, *QUICK])
    with suppress(SystemExit):  # it finds near duplicates
        main(["check_data", str(source)])
    files = written(here)
    names = {file.name for file in files}
    assert any(name.endswith(".npy") for name in names) and {"report.html", "images.npz", "best.ckpt"} <= names
    leaks = [(file, secret) for file, data in files.items() for secret in (*SECRETS, b"Exif\0\0") if secret in data]
    assert not leaks

    from project.datamodules.images.shards import ShardReader, read_shard_index

    index, read = read_shard_index("shards", None), ShardReader("shards")
    from project.images import decode

    row = list(index.keys).index("dark/0.jpg")
    pixels = decode(read(row)).pixels
    assert pixels.shape[:2] == (40, 30) and np.abs(pixels[:8, :8].astype(int) - 128).max() < 12
