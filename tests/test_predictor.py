"""`project.load`: inference in Python from checkpoints and exported files."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import project
from project.cli import main
from project.errors import UserError
from project.interface import ClassTarget, MultilabelTarget, Target, ValueTarget
from tests.conftest import COLORS, QUICK, fit

BEST = Path("logs/run/version_0/checkpoints/best.ckpt")


@pytest.fixture
def trained(tree: Path, here: Path) -> Path:
    """A tree of images; the current folder has a run that was trained on it."""
    main(fit(tree, "--trainer.max_epochs", "2", "--test_after_fit", "false"))
    return tree


def scores(predictions: list[project.Prediction]) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack([each.scores for each in predictions])


def test_every_kind_of_sample(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, file = project.load(BEST), trained / "red" / "000.png"
    one = model.predict(file)
    assert isinstance(one, project.Prediction) and one.label == "red" and one.path == str(file)
    assert list(one.probabilities) == sorted(COLORS) and one.probability == one.probabilities["red"] > 0.5
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5) and one.confident is None
    assert str(one) == f"red {one.probability:.1%}" and one.to_dict()["class"] == "red"
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
        image.save("with_exif.jpg", exif=_turned())
        same = [model.predict(image), model.predict(pixels), model.predict(pixels / 255)]
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    same += [model.predict(tensor), model.predict(tensor / 255), *model.predict([str(file), image_of(pixels)])]
    same += [*model.predict(torch.stack([tensor, tensor])), *model.predict(np.stack([pixels]))]
    assert np.allclose(scores(same), one.scores, atol=1e-6)
    with Image.open("with_exif.jpg") as image:
        assert np.allclose(model.predict(image).scores, model.predict("with_exif.jpg").scores, atol=1e-6)

    everything = model.predict(trained)
    assert [each.path for each in everything] == [str(path) for path in sorted(trained.rglob("*.png"))]
    main(["predict", "--ckpt_path", str(BEST), "--data.root", str(trained), *QUICK[:4], *QUICK[-2:]])
    with Path("logs/predict/version_0/predictions.csv").open(newline="") as stream:
        rows = [[float(row[name]) for name in sorted(COLORS)] for row in csv.DictReader(stream)]
    assert np.allclose(scores(everything), rows, atol=2e-6), "as the command has it"
    assert np.allclose(project.load("best").predict(file).scores, one.scores)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def image_of(pixels: np.ndarray) -> Image.Image:  # type: ignore[type-arg]
    return Image.fromarray(pixels)


@pytest.mark.slow
def test_exported_files(trained: Path) -> None:
    saved = torch.load(BEST, weights_only=True)
    threshold = float(np.median([each.probability for each in project.load(BEST).predict(trained)]))
    saved["data_description"]["target"]["init_args"]["confidence_threshold"] = threshold
    torch.save(saved, BEST)
    expected = project.load(BEST).predict(trained)
    assert {each.confident for each in expected} == {True, False}
    for format in ("onnx", "pt2", "safetensors"):
        main(["export", "--ckpt_path", str(BEST), "--format", format, "--output", f"model.{format}", *QUICK[:4]])
        found = project.load(f"model.{format}").predict(trained)
        assert np.allclose(scores(found), scores(expected), atol=1e-5)
        assert [each.confident for each in found] == [each.probability >= threshold for each in found]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.zeros((8, 8, 4), np.uint8), r"got shape \(8, 8, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"got shape \(3, 8, 8\)"),
        (torch.zeros(8, 8, 3), r"got shape \(8, 8, 3\)"),
        (np.zeros(5), r"got shape \(5,\)"),
        (np.full((8, 8, 3), 200.0), "floats in \\[0, 1\\], got 200 to 200"),
        (np.full((8, 8, 3), np.nan), "floats in"),
        (np.zeros((8, 8, 3), np.int64), "got int64"),
    ],
)
def test_wrong_arrays_are_rejected(sample: object, message: str, trained: Path) -> None:
    with pytest.raises(ValueError, match=message):
        project.load(BEST).predict(sample)


def test_wrong_files_are_rejected(trained: Path, here: Path) -> None:
    model = project.load(BEST)
    Path("broken.jpg").write_bytes(b"not an image")
    Path("empty").mkdir()
    for wrong, message in (("broken.jpg", "cannot read image broken.jpg"), ("empty", "no images in empty")):
        with pytest.raises(UserError, match=message):
            model.predict(wrong)
    with pytest.raises(UserError, match="no such checkpoint"):
        project.load("nothing.ckpt")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        project.load("broken.jpg")


def test_fixed_item_transforms_are_not_ignored(tree: Path, here: Path) -> None:
    crop = ["--data.item_transforms", "[{class_path: torchvision.transforms.v2.CenterCrop, init_args: {size: 6}}]"]
    main(fit(tree, "--test_after_fit", "false", *crop))
    with pytest.raises(UserError, match="was trained with data.item_transforms CenterCrop"):
        project.load(BEST)


SCORES = np.array([0.75, 0.625], np.float32)


@pytest.mark.parametrize(
    ("target", "found", "missing", "advice"),
    [
        (ClassTarget(["a", "b"], [1, 1]), {"label": "a"}, "labels", "label and probabilities"),
        (MultilabelTarget(["a", "b"], [1, 1], [2, 2], 0, [0.8, 0.5]), {"labels": ["b"]}, "label", "labels and prob"),
        (
            ValueTarget(["a", "b"], [0.0, 0.0], [1.0, 1.0]),
            {"values": {"a": 0.75, "b": 0.625}},
            "probabilities",
            "values",
        ),
    ],
)
def test_attributes_by_target(target: Target, found: dict[str, object], missing: str, advice: str) -> None:
    prediction = project.Prediction(SCORES, target)
    assert {name: getattr(prediction, name) for name in found} == found
    assert target.kind == "values" or prediction.probabilities == {"a": 0.75, "b": 0.625}
    with pytest.raises(AttributeError, match=f"a prediction of {target.kind} has no {missing}: use {advice}"):
        getattr(prediction, missing)


def test_import_is_light() -> None:
    code = "import sys, project; print(sorted({'numpy', 'torch', 'PIL', 'lightning'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
