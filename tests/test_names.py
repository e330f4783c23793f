"""Class names in any script, with invalid UTF-8, or that look like YAML values, in every core command."""

import csv
import os
import shutil
from pathlib import Path

import pytest

from project.cli import main
from project.cli.commands import commands
from project.modules import Classifier
from tests.conftest import QUICK, fit, write_images
from tests.runs import RUN, load

ODD = ["\U0001f600", "\U00020bb7", os.fsdecode(b"caf\xe9"), "plain: {x}", "null", "1e5"]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Six classes that differ in color."""
    for number, name in enumerate(ODD):
        write_images(tmp_path / "odd" / name, 8, tuple(40 + 180 * (number >> bit & 1) for bit in range(3)))  # type: ignore[arg-type]
    return tmp_path / "odd"


def classes_of(file: Path) -> set[str]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return {row["class"] for row in csv.DictReader(stream)}


def test_class_names(odd: Path, here: Path) -> None:
    main(fit(odd, "--trainer.max_epochs", "1"))
    best = str(RUN / "checkpoints/best.ckpt")
    assert classes_of(RUN / "test_predictions.csv") == set(ODD)
    main(["test", "--ckpt_path", best, *QUICK])
    main(["predict", "--ckpt_path", best, "--data.root", str(odd), *QUICK])
    with Path("logs/predict/version_0/predictions.csv").open(encoding="utf-8", errors="surrogateescape") as stream:
        assert next(csv.reader(stream))[2:] == sorted(ODD)
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    assert load(RUN)["global_step"] == 6
    model = Classifier.load_from_checkpoint(best, map_location="cpu", weights_only=True)
    assert model.data_description.classes.class_names == sorted(ODD)
    if "export" in commands():
        main(["export", "--ckpt_path", best, "--output", "model.onnx"])
        main(["predict_exported", "model.onnx", str(odd), "--output", "exported.csv"])
        assert classes_of(Path("exported.csv")) <= set(ODD)


def test_class_names_of_a_table_in_another_encoding(odd: Path, here: Path) -> None:
    shutil.copytree(odd, "images")
    rows = [f"{name}/{i:03d}.png,{label}" for name, label in (("null", "Tee"), ("1e5", "Caf\xe9")) for i in range(8)]
    Path("images/cp1252.csv").write_bytes("\n".join(["path,label", *rows]).encode("cp1252"))
    args = fit(Path("images"), "--trainer.max_epochs", "1", "--test_after_fit", "false")
    main([*args, "--data.table", "images/cp1252.csv"])
    main(["test", "--ckpt_path", "best", *QUICK])
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])


def test_saved_metric_states_are_linear_in_the_number_of_classes(odd: Path, here: Path) -> None:
    main(fit(odd, "--trainer.max_epochs", "1", "--test_after_fit", "false"))
    saved = load(RUN)
    assert max(value.numel() for value in saved["counted"].values()) == 3 * len(ODD)
    assert not any("data_description" in key for key in saved["hyper_parameters"])
