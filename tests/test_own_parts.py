"""Examples of docs/extend.md: custom components in files outside the project."""

import csv
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project import __path__ as package
from project.cli import main
from project.cli.commands import commands, packages
from tests.conftest import QUICK, REPOSITORY, fit

PAGE = (REPOSITORY / "docs" / "extend.md").read_text()


def example(name: str) -> str:
    """Return a file of docs/extend.md, joined from its code blocks."""
    return "\n".join(re.findall(rf'```python title="{name}"\n(.*?)```', PAGE, re.DOTALL))


@pytest.fixture
def mine(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with an importable mine.py."""
    (here / "mine.py").write_text(example("mine.py"))
    monkeypatch.syspath_prepend(str(here))
    importlib.invalidate_caches()
    yield here  # type: ignore[misc]
    sys.modules.pop("mine", None)


def write(config: dict[str, object]) -> list[str]:
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    return ["--config", "mine.yaml"]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


RUN = Path("logs/run/version_0")


def test_task_of_counts(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    lines = ["path,cells"]
    for number in range(80):
        pixels, count = np.zeros((8, 8, 3), np.uint8), int(draw.integers(1, 9))
        pixels.reshape(64, 3)[draw.choice(64, count, replace=False)] = 255
        Image.fromarray(pixels).save(f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{count}")
    Path("t.csv").write_text("\n".join(lines))
    options = ["--data.table", "t.csv", "--data.columns.label", "cells", "--data.target", "values", *QUICK]
    short = ["--trainer.max_epochs", "20", "--data.batch_size", "16", "--data.batch_transforms", "[]"]
    main(["fit", *options, *short, "--model.task", "mine.Counts", "--model.optimizer.lr", "0.002"])
    tested = rows(RUN / "test_predictions.csv")
    assert list(tested[0]) == ["path", "cells", "predicted cells"]
    error = [abs(float(row["cells"]) - float(row["predicted cells"])) for row in tested]
    assert sum(error) / len(error) < 1.5 and all(float(row["predicted cells"]) > 0 for row in tested)
    assert "MAE" in capsys.readouterr().out
    main(["test", "--ckpt_path", "best", *QUICK])
    main(["predict", "--ckpt_path", "best", "--data.root", "00.png", *QUICK])
    shown = float(rows(Path("logs/predict/version_0/predictions.csv"))[0]["cells"])
    assert f"00.png: cells {shown:.4g}" in capsys.readouterr().out
    if "export" in commands():
        main(["export", "--ckpt_path", "best", "--format", "safetensors", *QUICK])
        assert "values differ by at most" in capsys.readouterr().out
    if "explain" in commands():
        used = ["--ckpt_path", str(RUN / "checkpoints/best.ckpt"), *QUICK]
        main(["explain", *used, "--images", "2", "--ablation", "true"])
        explained = rows(Path("logs/explain/version_0/explanations.csv"))
        assert [row["value"] for row in explained] == ["cells"] * 2
        assert float(rows(Path("logs/explain/version_0/ablation.csv"))[0]["mae_added"]) > 0


def test_text_classification(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write({"model": {"net": {"class_path": "mine.ByteNet"}}, "data": {"class_path": "mine.Texts"}})
    options = ["--trainer.max_epochs", "30", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    if "explain" in commands():
        with pytest.raises(SystemExit):
            main(["fit", *config, *options, "--trainer.callbacks", "project.explain.ErrorAnalysis"])
        assert "ErrorAnalysis is for images, and the data has texts" in capsys.readouterr().err
    main(["fit", *config, *options, "--model.optimizer.lr", "0.03"])
    output = capsys.readouterr().out
    assert "30 texts, 2 classes" in output and "accuracy 100.00%" in output and "test: 10 texts" in output
    assert "a poor one" in json.dumps(json.loads((RUN / "test.json").read_text())["samples"])
    assert "report" not in commands() or "a poor one" in (RUN / "report.html").read_text()

    main(["test", "--ckpt_path", "best", *options[2:]])
    assert "accuracy 100.00%" in capsys.readouterr().out
    main(["predict", "--ckpt_path", "best", *options[2:]])
    assert [row["class"] for row in rows(Path("logs/predict/version_0/predictions.csv"))] == ["good"] * 5 + ["bad"] * 5
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "31"])
    assert "31/31" in capsys.readouterr().out


def test_custom_loss_and_metric(tree: Path, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loss = {"class_path": "mine.PolyLoss", "init_args": {"epsilon": 2.0}}
    config = write({"model": {"loss": loss, "metrics": ["mine.WorstRecall"]}})
    main([*fit(tree, *config), "--trainer.max_epochs", "8", "--checkpoint.monitor", "val/WorstRecall"])
    assert "WorstRecall 1.0000" in capsys.readouterr().out
    found = [row for row in rows(RUN / "metrics.csv") if row["val/WorstRecall"]]
    assert len(found) == 8 and float(found[-1]["val/WorstRecall"]) == 1
    saved = torch.load(RUN / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]
    assert "report" not in commands() or "WorstRecall" in (RUN / "report.html").read_text()
    assert saved["loss"] == loss
    main(["test", "--ckpt_path", "best", *QUICK])
    assert "WorstRecall 1.0000" in capsys.readouterr().out
    main(["predict", "--ckpt_path", "best", *QUICK])

    with pytest.raises(SystemExit):
        main([*fit(tree, *config), "--model.label_smoothing", "0.1"])
    assert "model.label_smoothing is not supported by a custom model.loss" in capsys.readouterr().err


def test_duplicate_metric_names_are_rejected(tree: Path, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kappa = {"class_path": "torchmetrics.classification.MulticlassCohenKappa", "init_args": {"num_classes": 3}}
    with pytest.raises(SystemExit):
        main(fit(tree, *write({"model": {"metrics": [kappa, kappa]}})))
    assert "must be of different classes, got MulticlassCohenKappa, MulticlassCohenKappa" in capsys.readouterr().err


def test_image_commands_reject_other_datamodules(tree: Path, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands that read images themselves raise an error for other datamodules."""
    main([*fit(tree), "--test_after_fit", "false"])
    messages = {
        "robustness": "robustness is for an ImageDataModule or a DatasetModule, and data is a Texts",
        "export": "export compares the file on images of an IndexedDataModule, and Texts is none",
    }
    for command in messages.keys() & commands().keys():
        with pytest.raises(SystemExit):
            main([command, "--ckpt_path", "best", "--data", "mine.Texts", "--trainer.accelerator", "cpu"])
        assert messages[command] in capsys.readouterr().err


@pytest.fixture
def count(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package `count` of docs/extend.md, with an additional command without parameters in a new group."""
    files = {name: example(f"src/project/count/{name}") for name in ("__init__.py",)}
    files["__init__.py"] += 'COMMANDS["hello"] = ("project.count.hello.hello", "greet", "say hello")\n'
    files["hello.py"] = "def hello() -> None:\n    print('hello')\n"
    (here / "count").mkdir()
    for name, text in files.items():
        (here / "count" / name).write_text(text)
    monkeypatch.setattr("project.__path__", [*package, str(here)])
    for cached in (packages, commands):
        cached.cache_clear()
    yield here
    for cached in (packages, commands):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.startswith("project.count")]:
        del sys.modules[name]


def test_custom_command(tree: Path, count: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*fit(tree), "--trainer.max_epochs", "8", "--test_after_fit", "false"])
    capsys.readouterr()
    main(["count", "--ckpt_path", "best", *QUICK])
    assert capsys.readouterr().out.endswith("9 correct\n")
    main(["count", "--ckpt_path", "best", "--min_probability", "1.1", *QUICK])
    assert capsys.readouterr().out.endswith("0 correct\n")
    main(["hello"])
    assert capsys.readouterr().out == "hello\n"
    main(["--help"])
    assert "\nGreet:\n  hello             say hello" in capsys.readouterr().out
