"""All folds, in processes of their own."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from project.cross_validation import _root
from tests.conftest import QUICK


def run(here: Path, options: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "project", "cross_validate", "--folds", "3", "--", *options]
    return subprocess.run(command, cwd=here, capture_output=True, text=True)


def test_the_folder_of_runs_is_the_one_that_fit_takes(here: Path) -> None:
    (here / "one.yaml").write_text("trainer: {default_root_dir: one}")
    (here / "sub").mkdir()
    (here / "sub" / "two.yaml").write_text("trainer: more.yaml")
    (here / "sub" / "more.yaml").write_text("{default_root_dir: two}")
    (here / "none.yaml").write_text("data: {batch_size: 3}")
    for options, root in {
        "--config none.yaml --config gone.yaml": "logs",
        "--config one.yaml --config none.yaml": "one",
        "--config=sub/two.yaml --data.fold 1": "two",
        "--config one.yaml -c sub/two.yaml": "two",
        "--trainer.default_root_dir three --config one.yaml": "three",
        "--config one.yaml --trainer.default_root_dir=three": "three",
    }.items():
        assert _root(options.split()) == Path(root), options


@pytest.mark.slow
def test_mean_and_spread_over_folds(tree: Path, here: Path) -> None:
    (here / "mine.yaml").write_text("trainer: {default_root_dir: mine}")
    short = ["--trainer.max_epochs", "2", "--data.batch_transforms", "[]"]
    done = run(here, ["--config", "mine.yaml", "--data.root", str(tree), *QUICK, *short])
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("test/acc"))
    mean, _, *each = (float(word.removesuffix("%")) / 100 for word in line.split()[1:])
    assert len(each) == 3 and mean == pytest.approx(sum(each) / 3, abs=1e-3)
    with (here / "mine/folds/folds.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["test/acc"]) for row in rows] == pytest.approx(each, abs=1e-4)
    assert all(Path(row["run"], "checkpoints", "best.ckpt").is_file() for row in rows)
    splits = [(here / f"mine/folds/version_{fold}/split.csv").read_text().splitlines() for fold in range(3)]
    held_out = [{row.split(",")[0] for row in rows if row.endswith(",test")} for rows in splits]
    assert sum(map(len, held_out)) == 60 == len(set.union(*held_out))


@pytest.mark.slow
def test_a_failed_fold_is_named(here: Path) -> None:
    done = run(here, ["--data.root", "nowhere"])
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: fold 1 of 3 ended with exit code 2")
