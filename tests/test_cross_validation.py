"""All folds, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import QUICK


def run(here: Path, options: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "project", "cross_validate", "--folds", "3", "--", *options]
    return subprocess.run(command, cwd=here, capture_output=True, text=True)


@pytest.mark.slow
def test_mean_and_spread_over_folds(tree: Path, here: Path) -> None:
    done = run(here, ["--data.root", str(tree), *QUICK, "--trainer.max_epochs", "2", "--data.batch_transforms", "[]"])
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("test/acc"))
    mean, _, *each = map(float, line.split()[1:])
    assert len(each) == 3 and mean == pytest.approx(sum(each) / 3, abs=1e-3)
    splits = [(here / f"logs/folds/version_{fold}/split.csv").read_text().splitlines() for fold in range(3)]
    held_out = [{row.split(",")[0] for row in rows if row.endswith(",test")} for rows in splits]
    assert sum(map(len, held_out)) == 60 == len(set.union(*held_out))


@pytest.mark.slow
def test_a_failed_fold_is_named(here: Path) -> None:
    done = run(here, ["--data.root", "nowhere"])
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: fold 1 of 3 ended with exit code 2")
