"""Tests of export: parity with the checkpoint, predict_exported and error messages."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from project.cli import main
from project.cli.commands import commands
from project.deploy.load import load_exported
from project.errors import UserError
from project.images import fit_pixels, to_pixels
from project.modules import Classifier
from project.secure.sign import make_key
from tests.conftest import COLORS, QUICK, REPOSITORY, fit

CHECKPOINT = Path("logs/run/version_0/checkpoints/best.ckpt")
RUN = CHECKPOINT.parents[1]
NETS = {
    "ConvNet": ["--model.tta", "flip_translate"],
    "ResNet": ["--model.net", "project.modules.ResNet", "--model.net.depth", "8"],
    "timm": ["--model.net", "Timm", "--model.net.name", "test_efficientnet", "--model.net.weights", "null"],
    "timm, attention": ["--model.net", "Timm", "--model.net.name", "test_vit", "--model.net.weights", "null"],
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A dataset of JPEGs and PNGs of various sizes, smaller and larger than the input of the network."""
    random = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for number in range(16):
            height, width = random.integers(5, 90, 2)
            coarse = np.clip(np.array(color) + random.integers(-60, 60, (4, 4, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
            image.save(root / name / f"{number:02d}.{('png', 'jpg')[number % 2]}")
    return root


def trained(root: Path, *more: str) -> Classifier:
    """Train a model with low confidence, so that small differences are visible, and set a temperature."""
    main(fit(root, "--test_after_fit", "false", "--trainer.max_epochs", "1", "--data.image_size", "16", *more))
    saved = torch.load(CHECKPOINT, weights_only=True)
    saved["state_dict"]["task.temperature"] = torch.tensor(1.7)
    torch.save(saved, CHECKPOINT)
    return Classifier.load_from_checkpoint(CHECKPOINT, map_location="cpu").eval()


@pytest.mark.slow
def test_the_example_in_the_docs_predicts_the_class(tree: Path, here: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "deploy.md").read_text(), re.DOTALL)
    main(fit(tree, "--test_after_fit", "false", "--trainer.max_epochs", "8"))
    main(["export", "--ckpt_path", "best", "--output", "model.onnx", *QUICK[:6]])
    shutil.copy(tree / "red" / "000.png", "photo.jpg")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert shown.stdout == "red\n", shown.stderr


def table(file: Path) -> list[list[str]]:
    """Return the rows of a CSV without the header."""
    with file.open(newline="") as stream:
        return list(csv.reader(stream))[1:]


def assert_parity(model: Classifier, file: Path, photos: Path) -> None:
    """Assert equal probabilities for single images of all sizes, and for batches of one and seven."""
    exported = load_exported(file)
    description = model.data_description
    assert description is not None and exported.description == description
    assert description.classes.class_names == sorted(COLORS)
    inputs = description.image

    def expected(fitted: list[NDArray[Any]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(model.predictions(inputs.prepare(torch.from_numpy(np.stack(fitted)))))

    for path in sorted(photos.rglob("*.*g")):
        pixels = to_pixels(path, inputs.channels, inputs.dtype)
        actual = exported.scores(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        assert actual.shape == (1, 3) and actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected([inputs.read(path)]), atol=2e-6)
    random = np.random.default_rng(0)
    for n, h, w in ((1, 16, 16), (7, 31, 9)):
        batch = random.integers(0, 256, (n, inputs.channels, h, w)).astype(inputs.dtype)
        fitted = [fit_pixels(image.transpose(1, 2, 0), inputs.size, inputs.fit) for image in batch]
        np.testing.assert_allclose(exported.scores(batch), expected(fitted), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "format"),
    [*((net, "onnx") for net in NETS), ("ConvNet", "pt2"), ("timm, attention", "pt2"), ("ConvNet", "safetensors")],
)
def test_an_exported_file_predicts_the_same_as_the_checkpoint(
    photos: Path, here: Path, capsys: pytest.CaptureFixture[str], net: str, format: str
) -> None:
    model = trained(photos, *NETS[net])
    main(["export", "--ckpt_path", "best", "--format", format, *QUICK[:6]])
    shown = capsys.readouterr()
    assert "100.00% of predictions agree" in shown.out and "warning" not in shown.err
    assert_parity(model, RUN / f"model.{format}", photos)
    assert [file.name for file in RUN.glob("*model*")] == [f"model.{format}"]
    assert not Path("logs/export").exists()


@pytest.mark.slow
def test_predict_exported_writes_the_table_of_predict(photos: Path, here: Path) -> None:
    model = trained(photos)
    main(["export", "--ckpt_path", "best", "--output", "m.onnx", "--data.root", str(photos / "red"), *QUICK[:6]])
    metadata = load_exported(Path("m.onnx")).metadata
    assert model.data_description is not None
    assert metadata["data_description"]["input"]["init_args"]["mean"] == model.data_description.image.mean
    assert (metadata["temperature"], metadata["tta"]) == (pytest.approx(1.7), "none")
    main(["predict", "--ckpt_path", "best", "--data.root", str(photos), *QUICK[:6], "--trainer.precision", "32-true"])
    # In a subprocess, to check its imports.
    code = "import sys; from project.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    args = ["predict_exported", "m.onnx", str(photos), "--output", "p.csv"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    ours, theirs = table(Path("p.csv")), table(Path("logs/predict/version_0/predictions.csv"))
    assert len(ours) == 48 and [row[:2] for row in ours] == [row[:2] for row in theirs]
    numbers = [np.array([row[2:] for row in rows], float) for rows in (ours, theirs)]
    np.testing.assert_allclose(*numbers, atol=2e-6)
    main(["predict_exported", "m.onnx", str(photos / "red" / "00.png")])
    assert table(Path("predictions.csv")) == [["00.png", *next(row for row in ours if row[0] == "red/00.png")[1:]]]


@pytest.mark.slow
def test_parity_with_masked_regions(photos: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "boxes.csv").write_text(
        "path,left,top,right,bottom\n" + "".join(f"{p.relative_to(photos)},0,0,4,4\n" for p in photos.rglob("*.*g"))
    )
    trained(photos, "--data.mask_boxes", "boxes.csv")
    main(["export", "--ckpt_path", "best", *QUICK[:6]])
    assert "100.00% of predictions agree" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_that_disagrees_is_deleted(photos: Path, here: Path) -> None:
    from project.datamodules import ImageDataModule
    from project.deploy.parity import check_parity, parity_samples

    model = trained(photos)
    main(["export", "--ckpt_path", "best", *QUICK[:6]])
    data = ImageDataModule(str(photos), image_size=16)
    data.setup("fit")
    images = parity_samples(data)
    assert "100.00% of predictions agree" in check_parity(RUN / "model.onnx", model, images)
    corrupted = onnx.load(RUN / "model.onnx")
    (mean,) = [value for value in corrupted.graph.initializer if value.name.endswith("mean")]
    mean.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(mean) + np.float32(0.01), mean.name))
    onnx.save(corrupted, "corrupted.onnx")
    with pytest.raises(UserError, match="disagrees with the checkpoint and was deleted"):
        check_parity(Path("corrupted.onnx"), model, images)
    assert not Path("corrupted.onnx").exists()


def test_error_messages(
    photos: Path, here: Path, failing: Callable[[list[str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    gray = {"class_path": "torchvision.transforms.v2.Grayscale", "init_args": {"num_output_channels": 3}}
    trained(photos, "--data.item_transforms", json.dumps([gray]))
    assert "data.item_transforms Grayscale preprocess every image" in failing(["export", "--ckpt_path", "best"])
    assert "must end in .pt2" in failing(
        ["export", "--ckpt_path", "best", "--format", "pt2", "--output", "m.onnx", "--data.item_transforms", "[]"]
    )
    Path("bad.onnx").write_bytes(b"no model")
    make_key(Path("key"))
    for args, message in (
        ([str(CHECKPOINT), str(photos)], "is not an exported model"),
        (["none.onnx", str(photos)], "no such file"),
        (["bad.onnx", str(photos)], "not written by `train.py export`, or is corrupted"),
        (["bad.onnx", str(photos), "--require_signature", "key.pub"], "bad.onnx is not signed"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["predict_exported", *args])
        assert stopped.value.code == 2 and message in capsys.readouterr().err


class WithoutSecure:
    """Import hook that simulates the removal of project.secure."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "project.secure":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_removed_package_is_named(
    here: Path, failing: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands()  # cached before the package is removed
    for name in ("project.secure", "project.secure.sign"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [WithoutSecure(), *sys.meta_path])
    serving = [["serve", "m.onnx"]] if "serve" in commands() else []
    for command in (["predict_exported", "m.onnx", "."], *serving):
        message = failing([*command, "--require_signature", "key.pub"])
        assert "this needs the package project.secure, which was removed from this project" in message


def test_help_lists_the_options_of_the_command_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].endswith("export [options]")
    assert 0 < shown.index("--format") < shown.index("--trainer")


def test_an_unknown_format(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    main(fit(tree, "--trainer.max_epochs", "1", "--test_after_fit", "false"))
    assert "format: expected one of onnx, pt2, safetensors, got 'onx'" in failing(
        ["export", "--ckpt_path", "best", "--format", "onx"]
    )
