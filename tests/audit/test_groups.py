"""Tests of `groups`: planted gaps are significant, random ones are not."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from project.audit.gaps import Grouping, largest_gap
from project.cli import main
from project.runs.predictions import Predictions
from tests.conftest import fit
from tests.report.made import made_run
from tests.runs import RUN


def biased(run: Path, flipped: float, images: int = 900) -> Path:
    """Make a run in which a fraction of the correct predictions of one group is flipped; return its table of groups."""
    made_run(run, 3, images, accuracy=0.9)
    draw = np.random.default_rng(1)
    file = run / "test_predictions.csv"
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    group = draw.choice(["dark", "light", "light"], images)
    for row, each in zip(rows, group, strict=True):
        if each == "dark" and row["class"] == row["predicted"] and draw.random() < flipped:
            row["predicted"] = "class 000" if row["class"] != "class 000" else "class 001"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = run / "table.csv"
    with table.open("w", newline="") as stream:
        writer2 = csv.writer(stream)
        writer2.writerow(["path", "tone", "sex"])
        for number, (row, each) in enumerate(zip(rows, group, strict=True)):
            writer2.writerow([row["path"], "rare" if number < 12 else each, "fm"[number // 7 % 2]])
    return table


def read(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_groups_of_the_training_table(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table and the columns that a run was trained with need not be named again."""
    monkeypatch.chdir(tmp_path)
    names = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*.png"))
    lines = [f"{name};{name.split('/')[0]};p{number // 3}" for number, name in enumerate(names)]
    (tree / "t.csv").write_text("\n".join(["id;breed;patient", *lines]))
    columns = [
        f"--data.columns.{key}={name}" for key, name in (("path", "id"), ("label", "breed"), ("group", "patient"))
    ]
    main([*fit(tree), "--data.table", str(tree / "t.csv"), *columns])
    main(["groups", str(RUN), "--column", "patient"])
    assert len(read(RUN / "groups.csv")) > 1


@pytest.mark.slow
def test_a_planted_gap_is_significant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    table = biased(run, 0.25)
    main(["groups", str(run), "--table", str(table), "--column", "[tone, sex]"])
    shown = capsys.readouterr().out
    assert "worst group: dark" in shown and "small, not compared" in shown
    gaps = {(row["groups"], row["figure"]): row for row in read(run / "gaps.csv")}
    for figure in ("accuracy", "mean recall", "recall"):
        assert gaps["tone", figure]["lowest"] == "dark" and gaps["tone", figure]["verdict"] == "significant"
        assert float(gaps["tone", figure]["gap low"]) > 0
    assert gaps["sex", "accuracy"]["verdict"] == "not significant"
    assert "dark" in gaps["tone and sex", "accuracy"]["lowest"]
    rows = {(row["groups"], row["group"]): row for row in read(run / "groups.csv")}
    assert rows["tone", "rare"]["small"] == "True" and rows["tone", "rare"]["images"] == "12"
    tone = [row for (title, _), row in rows.items() if title == "tone"]
    assert sum(int(row["images"]) for row in tone) == 900
    assert sum(float(rows["tone", "dark"][f"selection rate class 00{i}"]) for i in range(3)) == pytest.approx(
        1, abs=1e-5
    )


@pytest.mark.slow
def test_a_large_gap_stays_significant_among_many_columns(tmp_path: Path) -> None:
    run = tmp_path / "run"
    rows = read(biased(run, 1.0, 300))
    columns = [f"column {number}" for number in range(9)]
    with (run / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "tone", *columns])
        draw = random.Random(0)
        writer.writerows([row["path"], row["tone"], *(draw.choice("ab") for _ in columns)] for row in rows)
    main(["groups", str(run), "--table", str(run / "table.csv"), "--column", json.dumps(["tone", *columns])])
    gaps = {(row["groups"], row["figure"]): row for row in read(run / "gaps.csv")}
    assert len(gaps) >= 50 and gaps["tone", "accuracy"]["verdict"] == "significant"


@pytest.mark.parametrize("seed", range(3))
def test_gaps_of_random_groups_are_not_significant(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_run(tmp_path / "run", 3, 600)
    group = np.random.default_rng(seed).choice(["a", "b", "c", "d", "e"], 600)
    lines = [f"{row['path']},{each}" for row, each in zip(read(run / "test_predictions.csv"), group, strict=True)]
    (tmp_path / "groups.csv").write_text("\n".join(["path,site", *lines]))
    main(["groups", str(run), "--table", str(tmp_path / "groups.csv"), "--column", "site"])
    assert {row["verdict"] for row in read(run / "gaps.csv")} == {"not significant"}


@pytest.mark.slow
def test_mean_recall_is_not_confounded_by_the_class_distribution() -> None:
    significant = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        label = np.arange(2000) % 2
        correct = draw.random(2000) < np.where(label == 0, 0.98, 0.6)
        group = (draw.random(2000) < np.where(label == 0, 0.4, 0.96)).astype(int)
        confidence = np.full(2000, 0.8)
        tested = Predictions(["easy", "hard"], [], label, np.where(correct, label, 1 - label), confidence, confidence)
        gap = largest_gap(Grouping("site", ["a", "b"], group, tested), "mean recall")
        assert gap is not None
        significant.append(gap["p"] < 0.05)
    assert sum(significant) <= 1, "expected in 1 of 20; in 1 of 3 when permuting across classes"


def test_rates() -> None:
    label, predicted = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 1, 1, 1, 0, 0])
    confidence = np.array([0.9, 0.6, 0.9, 0.9, 1.0, 0.8])
    tested = Predictions(["x", "y"], [], label, predicted, confidence, confidence)
    grouping = Grouping("g", ["a", "b"], np.array([0, 0, 0, 0, 1, 1]), tested)
    assert grouping.rates("accuracy").tolist() == [[0.75], [0.5]]
    assert grouping.rates("recall").tolist() == [[0.5, 1], [1, 0]]
    assert grouping.rates("mean recall").tolist() == [[0.75], [0.5]]
    assert grouping.rates("selection rate").tolist() == [[0.25, 0.75], [1, 0]]
    assert grouping.rates("calibration error").ravel() == pytest.approx([0.225, 0.4])
    assert np.isnan(grouping.rates("recall", 2)[1]).all() and grouping.rates("accuracy", 2)[1, 0] == 0.5


def test_groups_by_folder_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run", 3, 300)
    main(["groups", str(run), "--folder_level", "0"])
    assert "folder 0" in capsys.readouterr().out

    def error(*args: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["groups", str(run), *args])
        assert stopped.value.code == 2
        return capsys.readouterr().err

    (tmp_path / "other.csv").write_text("path,site\nelsewhere.jpg,a\n")
    assert "give either --column NAME" in error()
    assert "give a table of groups with --table" in error("--column", "site")
    assert "lists none of the tested images" in error("--column", "site", "--table", str(tmp_path / "other.csv"))
    assert "no column 'tone'; it has path, site" in error("--column", "tone", "--table", str(tmp_path / "other.csv"))
    assert "has no folder 3" in error("--folder_level", "3")
