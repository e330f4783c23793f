"""Folders of files that are not 8-bit RGB squares go through all commands, and nothing is left out silently."""

import asyncio
import csv
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from project.cli import main
from project.deploy.predict import predict_exported
from project.images import find
from project.serve.service import Service, Settings
from tests.conftest import fit
from tests.datamodules.test_decode_property import FORMATS, encode, encode_dicom

Failing = Callable[[list[str]], str]
pytestmark = pytest.mark.slow
RUN = Path("logs/run/version_0")
EVALUATED = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
SMALL = ["--data.batch_size", "16", "--data.batch_transforms", "[]"]


def train(root: Path, *options: str, epochs: int = 4, run: int = 0) -> float:
    """Train and test on 32-pixel images; return the test accuracy."""
    main([*fit(root), *SMALL, "--data.image_size", "32", "--trainer.max_epochs", str(epochs), *options])
    with (RUN.parent / f"version_{run}" / "metrics.csv").open() as stream:
        return float(next(row["test/acc"] for row in csv.DictReader(stream) if row.get("test/acc")))


def warned(recwarn: pytest.WarningsRecorder) -> str:
    """Return the warnings since the last call."""
    text = "\n".join(str(warning.message) for warning in recwarn)
    recwarn.clear()
    return text


def stripes(deep: Any, label: int, count: int, root: Path, suffix: str = "png") -> None:
    """Write grayscale images with stripes across or down, mapped to pixel values by `deep`."""
    random = np.random.default_rng(label)
    position = np.mgrid[:32, :32][label]
    folder = root / ("across", "down")[label]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = deep(position // 4 % 2 * 200 + random.integers(0, 50, (32, 32)))
        if suffix == "npy":
            np.save(folder / f"{number}.npy", pixels)
        elif suffix == "dcm":
            (folder / f"{number}.dcm").write_bytes(encode_dicom(pixels))
        else:
            Image.fromarray(pixels).save(folder / f"{number}.{suffix}")


@pytest.mark.parametrize(
    ("suffix", "deep", "shown"),
    [
        ("png", lambda x: x.astype(np.uint16), "uint16 from 0 to"),  # 16-bit files of which 8 bits are used
        ("npy", lambda x: (x * 1e-3 + 300).astype(np.float32), "float32 from 300"),  # a window with an offset
        ("dcm", lambda x: (x + 1000).astype(np.int16), "float32 from"),
    ],
)
def test_deep_images_train_as_well_as_their_8_bit_twins(
    suffix: str, deep: Any, shown: str, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in range(2):
        stripes(deep, label, 40, tmp_path / "deep", suffix)
    assert train(tmp_path / "deep") >= 0.95
    assert shown in capsys.readouterr().out
    if suffix != "dcm":
        main(["export", "--ckpt_path", "best", *EVALUATED])
        assert "100.00% of predictions agree" in capsys.readouterr().out
    copied = [file for folder in ("logs", "data") for file in Path(folder).rglob("*") if file.is_file()]
    assert copied and not any(b"Somebody" in file.read_bytes() for file in copied), "the patient's name is not copied"


def images_of(root: Path, names: tuple[str, str], count: int) -> Iterator[tuple[np.random.Generator, int, Path]]:
    """Create two class folders; yield a random generator, the label and the file without suffix of each image."""
    random = np.random.default_rng(0)
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        yield from ((random, label, root / name / str(number)) for number in range(count))


def test_bands_are_never_dropped(tmp_path: Path, here: Path, failing: Failing) -> None:
    for random, label, file in images_of(tmp_path / "bands", ("crop", "water"), 20):
        pixels = random.integers(60, 120, (32, 32, 4)).astype(np.uint8)
        pixels[..., 3] = 10 if label else 220
        tifffile.imwrite(file.with_suffix(".tif"), pixels, photometric="rgb", extrasamples=["unspecified"])
    message = failing([*fit(tmp_path / "bands"), *SMALL])
    assert "40 of 40 images" in message and "4 channels" in message and "use --data.channels 4" in message
    assert train(tmp_path / "bands", "--data.channels", "4") >= 0.95
    main(["export", "--ckpt_path", "best", *EVALUATED])
    predict_exported(RUN / "model.onnx", tmp_path / "bands")
    assert len(Path("predictions.csv").read_text().splitlines()) == 41


def test_a_crop_that_cuts_off_much_is_said_and_can_be_turned_off(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    for random, label, file in images_of(tmp_path / "wide", ("left", "right"), 60):
        pixels = random.integers(90, 110, (32, 128, 3)).astype(np.uint8)
        top, left = random.integers(0, 20), random.integers(0, 20) + 96 * label
        pixels[top : top + 12, left : left + 12] = 255
        Image.fromarray(pixels).save(file.with_suffix(".png"))
    cut = "cuts off 75% of an image (median), at most 75%, more than a quarter of 120 of 120 images"
    assert train(tmp_path / "wide", epochs=1) < 0.9
    assert f"{cut}: to keep whole images, use --data.fit pad" in warned(recwarn)
    with pytest.raises(SystemExit):  # the banners are near duplicates of each other
        main(["check_data", str(tmp_path / "wide")])
    assert cut in capsys.readouterr().out
    for run, options in enumerate(
        (["--data.fit", "pad"], ["--data.fit", "stretch"], ["--data.image_size", "[32,128]"])
    ):
        assert train(tmp_path / "wide", *options, epochs=6, run=run + 1) >= 0.95
        assert "cuts off" not in warned(recwarn)
        if "--data.fit" in options:  # the exported file fits images, too
            main(["export", "--ckpt_path", "best", *EVALUATED])
            assert "100.00% of predictions agree" in capsys.readouterr().out


def test_files_that_are_not_read_are_counted(
    tmp_path: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warnings.simplefilter("always")  # not only the first of equal warnings; undone by recwarn
    for random, label, file in images_of(tmp_path / "suffix", ("cat", "dog"), 12):
        pixels = random.integers(0, 60, (8, 8, 3)).astype(np.uint8)
        pixels[..., label] += 150
        Image.fromarray(pixels).save(file.with_suffix(".jfif"), "JPEG")
        file.with_name(f"p{file.name}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
        file.with_suffix(".txt").touch()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    find.readable_extensions.cache_clear()
    try:
        said = "skipped: 24 .heic (pip install -e '.[heic]'), 24 .txt"
        train(tmp_path / "suffix", epochs=1)
        assert said in warned(recwarn)
        main(["predict", "--ckpt_path", "best", "--data.root", str(tmp_path / "suffix"), *EVALUATED])
        assert said in warned(recwarn) and "24 images of" in capsys.readouterr().out
        main(["check_data", str(tmp_path / "suffix"), "--min_images", "1"])
        assert said in capsys.readouterr().out
    finally:
        find.readable_extensions.cache_clear()


def odd_files(root: Path) -> None:
    """Write 200 files of all formats, depths, channels and orientations, some of them damaged, and other files."""
    random = np.random.default_rng(0)
    suffixes = {"png16": "png", "tiff": "tif", "jpeg": "jfif"}
    for number in range(200):
        name = ("dark", "light")[number % 2]
        (root / name).mkdir(parents=True, exist_ok=True)
        file_format = sorted(FORMATS)[number % len(FORMATS)]
        dtypes, channels, _ = FORMATS[file_format]
        dtype, bands = np.dtype(random.choice(dtypes)), int(random.choice([c for c in channels if c <= 4]))
        height, width = random.integers(6, 90, 2)
        level = random.random((height, width, bands)) * 0.3 + (0.6 if name == "light" else 0)
        top = 2 if dtype.kind == "b" else 255 if dtype.itemsize == 1 else 30_000
        data = encode((level * top).astype(dtype), file_format, int(random.integers(1, 9)))
        data = data[: len(data) // 2] if random.random() < 0.05 else data
        (root / name / f"{number:03}.{suffixes.get(file_format, file_format)}").write_bytes(data)
    (root / "dark" / "empty.png").touch()
    (root / "dark" / "notes.txt").touch()


def test_200_odd_files_go_through_all_commands(
    tmp_path: Path,
    here: Path,
    failing: Failing,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "odd"
    odd_files(root)
    warnings.simplefilter("always")  # not only the first of equal warnings; undone by recwarn
    assert "images in" in (message := failing([*fit(root), *SMALL])) and "--data.on_corrupt skip" in message
    train(root, "--data.on_corrupt", "skip", "--data.fit", "pad", epochs=1)
    shown = warned(recwarn)
    for said in (
        "skipped: 1 .txt",
        "transparency blended with white",
        "from 8 to 16 bits",
        "unreadable images",
    ):
        assert said in shown, said
    with (RUN / "split.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    unreadable = {row["path"] for row in rows if row["split"] == "skip"}
    assert len(rows) == 201 and 20 < len(unreadable) < 100 and "dark/empty.png" in unreadable
    main(["predict", "--ckpt_path", "best", "--data.root", str(root), *EVALUATED])
    with Path("logs/predict/version_0/predictions.csv").open() as stream:
        predicted = {row["path"]: row for row in csv.DictReader(stream)}
    assert predicted.keys() == {row["path"] for row in rows} - unreadable
    with pytest.raises(SystemExit) as stopped:
        main(["check_data", str(root)])
    assert stopped.value.code == 1
    main(["export", "--ckpt_path", "best", *EVALUATED])
    assert "100.00% of predictions agree" in capsys.readouterr().out
    for path in unreadable:
        (root / path).unlink()
    predict_exported(RUN / "model.onnx", root)
    with Path("predictions.csv").open() as stream:
        exported = {row["path"]: float(row["dark"]) for row in csv.DictReader(stream)}
    expected = {path: float(row["dark"]) for path, row in predicted.items()}
    assert exported == pytest.approx(expected, abs=2e-6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored after the service changes it
    with warnings.catch_warnings():
        service = Service(Settings(RUN / "model.onnx", 1, None, None, 8, 10**6, 10**6, 5, None))
        for path in sorted(expected)[::10]:
            body = (root / path).read_bytes()
            served = asyncio.run(service.predict("application/octet-stream", body, attribution=True))
            assert served["probabilities"]["dark"] == pytest.approx(expected[path], abs=2e-6)
            assert served["attribution"]["overlay"].startswith("data:image/png")
