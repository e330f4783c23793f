"""Tests of `train.py explain`."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from project.cli import main
from tests.conftest import COLORS, QUICK, fit, write_images

pytestmark = pytest.mark.slow

EXPLAIN = ["explain", "--ckpt_path", "best", *QUICK[:4]]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_explains_any_folder_and_a_single_image(
    tree: Path, here: Path, tmp_path: Path, failing: Callable[[list[str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(fit(tree, "--trainer.max_epochs", "8"))
    images = tmp_path / "mine"
    for name, color in COLORS.items():
        write_images(images / name, 4, color, size=20)
    write_images(images, 1, COLORS["green"])
    before = sorted(tmp_path.joinpath("mine").rglob("*"))
    options = ["--images", "5", "--methods", "[gradcam, occlusion]", "--class_name", "red", "--ablation", "true"]
    capsys.readouterr()
    assert "methods: expected one of gradcam, integrated_gradients, occlusion, got" in failing(
        [*EXPLAIN, "--methods", "lime"]
    )
    main([*EXPLAIN, "--data.root", str(images), *options])
    shown = capsys.readouterr().out
    assert "5 images of" in shown and "gradcam  " in shown and "occlusion  " in shown
    run = here / "logs" / "explain" / "version_0"
    rows = table(run / "explanations.csv")
    assert len({row["path"] for row in rows}) == 5
    assert {row["label"] for row in rows} == {*COLORS, ""}, "labels are folder names"
    assert all(row["predicted"] == (row["label"] or "green") for row in rows)
    assert {(row["method"], row["class"] == row["predicted"]) for row in rows} == {
        (method, own) for method in ("gradcam", "occlusion") for own in (True, False)
    }
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("probability", "deletion", "random_insertion"))
    for row in rows:
        width, height = Image.open(run / row["file"]).size
        assert width > (3 if row["predicted"] != "red" else 2) * 256 and height > 2 * 256
    lost = table(run / "ablation.csv")
    assert lost[0]["channel"] == "" and float(lost[0]["accuracy_lost"]) > 0.3
    assert [float(row["accuracy_lost"]) for row in lost] == sorted(
        (float(r["accuracy_lost"]) for r in lost), reverse=True
    )
    assert {row["layer"] for row in lost} == {"features.0", "features.3", "head.1"}
    for name in ("ablation.png", "filters.png", "feature_maps.png", "00000/features/sprite.png"):
        Image.open(run / name).verify()
    metadata = (run / "00000" / "features" / "metadata.tsv").read_text().splitlines()
    assert metadata[0] == "label\tpredicted\tpath" and len(metadata) == 1 + 13
    assert sorted(tmp_path.joinpath("mine").rglob("*")) == before

    main([*EXPLAIN, "--data.root", str(images / "000.png"), "--methods", "gradcam"])
    (row,) = table(here / "logs" / "explain" / "version_1" / "explanations.csv")
    assert row["path"] == "000.png" and row["predicted"] == "green"

    main(EXPLAIN)
    own = {row["path"] for row in table(here / "logs" / "explain" / "version_2" / "explanations.csv")}
    split = table(here / "logs" / "run" / "version_0" / "split.csv")
    assert own == {row["path"] for row in split if row["split"] == "test"}

    single = ["--data.root", str(images / "000.png")]
    assert "no class named pink: the classes are blue, green, red" in failing([*EXPLAIN, "--class_name", "pink"])
    assert "ablation needs labels" in failing([*EXPLAIN, *single, "--ablation", "true"])
    flat = ["--model.net", "tests.explain.planted.flat"]
    main([*fit(tree, *flat, "--test_after_fit", "false"), "--run_name", "flat"])
    assert "try --methods" in failing([*EXPLAIN, "--run_name", "flat"])
    assert not (here / "logs" / "explain" / "version_3").exists(), "a failed command leaves no folder"
    assert "methods" in failing([*EXPLAIN, "--methods", "gradcamm"])
    assert "explain needs a trained model" in failing(["explain", *single])
