"""Evaluation of a model on another dataset than it was trained on, and class names beyond ASCII."""

import json
import os
import shutil
from pathlib import Path

import pytest

from project.cli import main
from tests.conftest import COLORS, fit, write_images

USED = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--data.num_workers", "0"]


@pytest.mark.slow
def test_all_of_another_dataset_is_evaluated(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--run_name", "trained", "--trainer.max_epochs", "1"))
    (best,) = here.glob("logs/trained/version_0/checkpoints/best.ckpt")
    other, with_splits, moved = here / "other", here / "with_splits", here / "moved"
    for number, (name, color) in enumerate([*COLORS.items()][:2]):
        write_images(other / name, 2 + number, color)
        for split in ("train", "test"):
            write_images(with_splits / name / split, 2, color)
    shutil.copytree(tree, moved)

    def evaluate(command: str, root: Path, *more: str) -> str:
        capsys.readouterr()
        main([command, "--ckpt_path", str(best), "--data.root", str(root), *USED, *more])
        return capsys.readouterr().out

    said = "not the data that the model was trained on:"
    with pytest.warns(UserWarning, match="test has no images of class 'red': metrics are of the other 2 classes"):
        out = evaluate("test", other)
    assert "test: 5 images of the test split" in out and f"5 images, {said} all are evaluated" in out
    results = json.loads((here / "logs/test/version_0/test.json").read_text())
    assert results["split_sizes"] == {"train": 0, "val": 0, "test": 5}
    assert all(0 <= value < 100 for value in results["scalars"].values())  # not NaN
    assert (here / "logs/test/version_0/report.html").is_file()
    with pytest.warns(UserWarning, match="val has no images of class 'red'"):
        out = evaluate("validate", other)
    assert "val: 5 images of the val split" in out and said in out
    with pytest.warns(UserWarning, match="test has no images of class 'red'"):
        out = evaluate("test", with_splits)
    assert "test: 4 images" in out and f"8 images, {said} the 4 in its own test or val split are evaluated" in out
    for same in (tree, Path(os.path.relpath(tree)), moved):
        out = evaluate("test", same)
        assert "test: 9 images of the test split" in out and said not in out


@pytest.mark.slow
def test_the_training_dataset_keeps_its_splits_however_it_is_named(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With folds or groups, and moved; otherwise training images would be tested on."""
    lines = [f"{path.relative_to(tree)},{path.parent.name},{path.stem[-1]}" for path in sorted(tree.rglob("*.png"))]
    (tree / "t.csv").write_text("id,kind,patient\n" + "\n".join(lines))
    columns = ["--data.columns.path", "id", "--data.columns.label", "kind", "--data.columns.group", "patient"]
    table = ["--data.table", str(tree / "t.csv")]
    main(fit(tree, "--run_name", "grouped", "--trainer.max_epochs", "1", *table, *columns))
    main(fit(tree, "--run_name", "fold", "--trainer.max_epochs", "1", "--data.folds", "4", "--data.fold", "1"))
    shutil.copytree(tree, here / "moved")
    sizes = {run: (here / f"logs/{run}/version_0/split.csv").read_text().count(",test") for run in ("grouped", "fold")}
    for run, options in (
        ("grouped", table),
        ("grouped", ["--data.root", str(tree)]),
        ("grouped", ["--data.table", "moved/t.csv"]),
        ("fold", ["--data.root", "moved"]),
    ):
        capsys.readouterr()
        main(["test", "--ckpt_path", "best", "--run_name", run, *USED, *options])
        assert f"test: {sizes[run]} images of the test split" in capsys.readouterr().out, options


def test_a_test_folder_without_classes_does_not_stop_training(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tree, here / "contest" / "train")
    write_images(here / "contest" / "test", 4, (9, 9, 9))
    with pytest.warns(UserWarning, match=r"4 images in .*test, which has no class folders.*train.py predict"):
        main(fit(here / "contest", "--trainer.max_epochs", "1"))
    assert "test: 9 images of the test split" in capsys.readouterr().out


@pytest.mark.slow
def test_class_names_in_any_script_and_in_invalid_utf8(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["\U0001f600", "\U00020bb7", os.fsdecode(b"caf\xe9")]
    for name, color in zip(names, COLORS.values(), strict=True):
        write_images(here / "images" / name, 10, color)
    main(fit(here / "images", "--run_name", "names", "--trainer.max_epochs", "1"))
    run, used = here / "logs/names/version_0", ["--ckpt_path", "last", "--run_name", "names", *USED]
    main(["predict", *used, "--data.root", str(here / "images")])
    main(["test", *used])
    main(["export", *used])
    main(["predict_exported", str(run / "model.onnx"), "images", "--output", "exported.csv"])
    main(["explain", *used, "--images", "2", "--class_name", names[0]])
    main(["fit", *used, "--trainer.max_epochs", "2"])
    for file in (here / "logs/predict/version_0/predictions.csv", here / "exported.csv"):
        header = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[0]
        assert all(name in header for name in names), file
    assert "epoch" in capsys.readouterr().out
