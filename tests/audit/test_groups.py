"""A bias that was planted is found, and none where there is none."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from project.audit.gaps import Grouping, find_gap
from project.cli import main
from project.runs.predictions import Predictions
from tests.report.made import made_run


def biased(run: Path, lost: float, images: int = 900) -> Path:
    """A run that has `lost` of the right predictions of one group wrong; the table of its groups."""
    made_run(run, 3, images, accuracy=0.9)
    draw = np.random.default_rng(1)
    file = run / "test_predictions.csv"
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    group = draw.choice(["dark", "light", "light"], images)
    for row, each in zip(rows, group, strict=True):
        if each == "dark" and row["class"] == row["predicted"] and draw.random() < lost:
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


@pytest.mark.slow
def test_a_planted_bias_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    table = biased(run, 0.25)
    main(["groups", str(run), "--table", str(table), "--column", "[tone, sex]"])
    shown = capsys.readouterr().out
    assert "worst group: dark" in shown and "small, not compared" in shown
    gaps = {(row["groups"], row["figure"]): row for row in read(run / "gaps.csv")}
    for figure in ("accuracy", "mean recall", "recall"):
        assert gaps["tone", figure]["lowest"] == "dark" and gaps["tone", figure]["verdict"] == "more than noise"
        assert float(gaps["tone", figure]["gap low"]) > 0
    assert gaps["sex", "accuracy"]["verdict"] == "within noise"
    assert "dark" in gaps["tone and sex", "accuracy"]["lowest"]
    rows = {(row["groups"], row["group"]): row for row in read(run / "groups.csv")}
    assert rows["tone", "rare"]["small"] == "True" and rows["tone", "rare"]["images"] == "12"
    tone = [row for (title, _), row in rows.items() if title == "tone"]
    assert sum(int(row["images"]) for row in tone) == 900
    assert sum(float(rows["tone", "dark"][f"selection rate class 00{i}"]) for i in range(3)) == pytest.approx(
        1, abs=1e-5
    )


@pytest.mark.slow
def test_among_many_columns_total_bias_is_still_found(tmp_path: Path) -> None:
    run = tmp_path / "run"
    rows = read(biased(run, 1.0))
    columns = {f"column {number}": rows for number in range(11)}
    with (run / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "tone", *columns])
        draw = random.Random(0)
        writer.writerows([row["path"], row["tone"], *(draw.choice("ab") for _ in columns)] for row in rows)
    main(["groups", str(run), "--table", str(run / "table.csv"), "--column", json.dumps(["tone", *columns])])
    found = {(row["groups"], row["figure"]): row for row in read(run / "gaps.csv")}
    assert len(found) >= 50 and found["tone", "accuracy"]["verdict"] == "more than noise"


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_said_to_be_noise(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run", 3, 600)
    group = np.random.default_rng(seed).choice(["a", "b", "c", "d", "e"], 600)
    lines = [f"{row['path']},{each}" for row, each in zip(read(run / "test_predictions.csv"), group, strict=True)]
    (tmp_path / "groups.csv").write_text("\n".join(["path,site", *lines]))
    main(["groups", str(run), "--table", str(tmp_path / "groups.csv"), "--column", "site"])
    assert {row["verdict"] for row in read(run / "gaps.csv")} == {"within noise"}


@pytest.mark.slow
def test_a_group_is_not_blamed_for_holding_few_of_the_hard_class() -> None:
    blamed = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        label = np.arange(2000) % 2
        right = draw.random(2000) < np.where(label == 0, 0.98, 0.6)
        group = (draw.random(2000) < np.where(label == 0, 0.4, 0.96)).astype(int)
        sure = np.full(2000, 0.8)
        tested = Predictions(["easy", "hard"], [], label, np.where(right, label, 1 - label), sure, sure)
        gap = find_gap(Grouping("site", ["a", "b"], group, tested), "mean recall")
        assert gap is not None
        blamed.append(gap["p"] < 0.05)
    assert sum(blamed) <= 1, "by chance in one of twenty; by a test that mixes the classes in one of three"


def test_rates_by_hand() -> None:
    label, predicted = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 1, 1, 1, 0, 0])
    sure = np.array([0.9, 0.6, 0.9, 0.9, 1.0, 0.8])
    tested = Predictions(["x", "y"], [], label, predicted, sure, sure)
    grouping = Grouping("g", ["a", "b"], np.array([0, 0, 0, 0, 1, 1]), tested)
    assert grouping.rates("accuracy").tolist() == [[0.75], [0.5]]
    assert grouping.rates("recall").tolist() == [[0.5, 1], [1, 0]]
    assert grouping.rates("mean recall").tolist() == [[0.75], [0.5]]
    assert grouping.rates("selection rate").tolist() == [[0.25, 0.75], [1, 0]]
    assert grouping.rates("calibration error").ravel() == pytest.approx([0.225, 0.4])
    assert np.isnan(grouping.rates("recall", 2)[1]).all() and grouping.rates("accuracy", 2)[1, 0] == 0.5


def test_groups_by_folder_and_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run", 3, 300)
    main(["groups", str(run), "--folder_level", "0"])
    assert "folder 0" in capsys.readouterr().out

    def refused(*args: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["groups", str(run), *args])
        assert stopped.value.code == 2
        return capsys.readouterr().err

    (tmp_path / "other.csv").write_text("path,site\nelsewhere.jpg,a\n")
    assert "say what groups are by" in refused()
    assert "give a table of groups by --table" in refused("--column", "site")
    assert "names none of the tested images" in refused("--column", "site", "--table", str(tmp_path / "other.csv"))
    assert "no column 'tone'; it has path, site" in refused("--column", "tone", "--table", str(tmp_path / "other.csv"))
    assert "has no folder 3" in refused("--folder_level", "3")
