"""Tests of audits of models of labels and of values, from training to the model card."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from project.cli import main
from project.interface import MultilabelTarget, ValueTarget
from project.modules.tasks import Multilabel, Regression
from tests.conftest import QUICK
from tests.runs import RUN, load

COUNT = 300


def write_table(root: Path, names: list[str]) -> list[str]:
    """Write images with red, green, both or neither, and their table; return the options of the data."""
    draw = np.random.default_rng(0)
    root.mkdir()
    lines = [",".join(["path", *names, "site"])]
    for number in range(COUNT):
        red, green = draw.random(2)
        pixels = np.array([red, green, 0.5]) * 255 + draw.normal(0, 30, (8, 8, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number:03d}.png")
        targets = [red, green] if names == ["x", "y"] else [int(red > 0.5), int(green > 0.5)]
        cells = ["" if number % 20 == 0 else f"{value:.3g}" for value in targets]  # some are unknown
        lines.append(",".join([f"{number:03d}.png", *cells, "ab"[number % 2]]))
    (root / "t.csv").write_text("\n".join(lines))
    options = ["--data.table", str(root / "t.csv"), "--data.columns.label", f"[{','.join(names)}]", *QUICK]
    return [*options, "--data.val_fraction", "0.3", "--data.test_fraction", "0.3", "--data.batch_transforms", "[]"]


def read(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def audit(card: list[str]) -> None:
    """Run the audits of the run, and check what they have in common."""
    model = ["--ckpt_path", str(RUN / "checkpoints/best.ckpt"), *QUICK]
    main(["leak_test", *model])
    main(["robustness", *model, "--images", "20"])
    main(["groups", str(RUN), "--column", "site"])
    main(["model_card", str(RUN)])
    found = json.loads((RUN / "leak_test.json").read_text())
    sizes = json.loads((RUN / "test.json").read_text())["split_sizes"]
    unknown = sum(sizes[name] - found[key] for name, key in (("train", "trained_on"), ("test", "new")))
    assert 0 < unknown <= COUNT // 20, "images without a known target are left out"
    text = (RUN / "model_card.md").read_text()
    assert all(line in text for line in card), text
    assert "Not measured" not in text and "nan" not in text


@pytest.mark.slow
def test_labels(here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]) -> None:
    main(
        ["fit", *write_table(here / "images", ["red", "green"]), "--trainer.max_epochs", "10", "--data.batch_size", "8"]
    )
    audit(
        ["Multi-label image classification with 2 labels: red, green", "| green | ", "pipeline_tag: image-class", "f1"]
    )
    rows = {(row["name"], row["severity"]): float(row["F1"]) for row in read(RUN / "robustness.csv")}
    assert rows["clean", "0"] > max(0.8, rows["pgd", "5"] + 0.05) and rows["pgd", "5"] <= rows["pgd", "1"]
    assert {row["figure"] for row in read(RUN / "gaps.csv")} >= {"F1", "mean recall", "selection rate"}

    model = ["--ckpt_path", str(RUN / "checkpoints/best.ckpt"), *QUICK]
    capsys.readouterr()
    main(["calibrate", *model, "--target_recall", "0.99"])
    shown = capsys.readouterr().out
    assert "test after" in shown and "95 % CI of recall" in shown
    limits = load(RUN, "best.ckpt")["data_description"]["target"]["init_args"]["thresholds"]
    assert len(limits) == 2 and min(limits) != 0.5
    main(["predict", *model])
    for row in read(Path("logs/predict/version_0/predictions.csv")):
        names = [name for name, limit in zip(["red", "green"], limits, strict=True) if float(row[name]) >= limit]
        assert row["labels"] == "|".join(names)
    main(["test", *model])
    tested = read(Path("logs/test/version_0/test_predictions.csv"))
    known = [row for row in tested if row["red"] == "1"]
    recall = sum("red" in row["predicted"].split("|") for row in known) / len(known)
    assert recall > 0.85
    assert "--coverage is not for models of labels" in failing(["calibrate", *model, "--coverage", "0.9"])


@pytest.mark.slow
def test_values(here: Path, failing: Callable[[list[str]], str]) -> None:
    main(["fit", *write_table(here / "images", ["x", "y"]), "--trainer.max_epochs", "10", "--data.batch_size", "8"])
    audit(["Image regression of 2 values: x, y", "| y | 0.", "type: mae", "MAE x"])
    rows = {(row["name"], row["severity"]): float(row["MAE"]) for row in read(RUN / "robustness.csv")}
    assert rows["clean", "0"] < 0.2 and rows["clean", "0"] < rows["pgd", "1"] < rows["pgd", "5"]
    (row, *_) = (row for row in read(RUN / "gaps.csv") if row["figure"] == "bias")
    assert row["class"] in ("x", "y") and row["verdict"] == "not significant"
    model = ["--ckpt_path", str(RUN / "checkpoints/best.ckpt"), *QUICK]
    assert "calibrate is for images or texts with classes or labels, but" in failing(["calibrate", *model])


def test_losses_of_samples_leave_out_what_is_unknown() -> None:
    nan, outputs = torch.nan, torch.tensor([[2.0, 5.0], [1.0, -1.0], [3.0, 3.0]], requires_grad=True)
    target = torch.tensor([[1.0, nan], [0.0, 1.0], [nan, nan]])
    labels = Multilabel(MultilabelTarget(["a", "b"], [1, 1], [2, 2]))
    values = Regression(ValueTarget(["a", "b"], [1.0, 2.0], [2.0, 4.0]))
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    expected = {labels: [binary(outputs[0, :1], target[0, :1]), binary(outputs[1], target[1])]}
    expected[values] = [outputs[0, 0].square(), ((outputs[1] - torch.tensor([-0.5, -0.25])) ** 2).mean()]
    for task, losses in expected.items():
        found = task.sample_losses(outputs, target)
        torch.testing.assert_close(found[:2], torch.stack(losses))
        assert found[2].isnan()
        (gradient,) = torch.autograd.grad(found.sum(), outputs, retain_graph=True)
        assert gradient.isfinite().all() and (gradient[target.isnan()] == 0).all()
    # Predictions are 5, and 3 and -2, in the units of the data: errors of 4, and 3 and 3; the mean of those per value.
    assert values.headline_value(outputs.detach(), target) == pytest.approx(((4 + 3) / 2 + 3) / 2)
