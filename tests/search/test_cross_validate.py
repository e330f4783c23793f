"""Tests of `train.py cross_validate`, in subprocesses."""

import csv
import signal
import time
from pathlib import Path

import pytest

from project.search.cross_validate import _best_metrics
from tests.conftest import QUICK
from tests.runs import start


def run(here: Path, options: list[str], code: int = 0) -> list[str]:
    """Run the command in a process that must exit with this code, and return its lines."""
    process = start(["cross_validate", "--folds", "3", *options], here)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == code, shown
    return shown.strip().splitlines()


def test_val_metrics_are_those_of_the_tested_checkpoint(here: Path) -> None:
    (here / "config.yaml").write_text("checkpoint: {monitor: val/loss, mode: min}")
    lines = ["step,epoch,val/acc,val/loss,test/acc", "1,0,0.9,0.9,", "2,1,0.8,0.3,", "2,1,,,0.79"]
    (here / "metrics.csv").write_text("\n".join(lines))
    assert _best_metrics(here) == {"val/acc": 0.8, "val/loss": 0.3, "test/acc": 0.79}


@pytest.mark.slow
def test_mean_and_std_over_folds(tree: Path, here: Path) -> None:
    (here / "mine.yaml").write_text("trainer: {default_root_dir: mine}")
    short = ["--trainer.max_epochs", "2", "--data.batch_transforms", "[]"]
    lines = run(here, ["--config", "mine.yaml", "--data.root", str(tree), *QUICK, *short])
    line = next(line for line in lines if line.startswith("test/acc"))
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
def test_failed_fold_is_named(here: Path) -> None:
    assert run(here, ["--data.root", "nowhere"], 2)[-1].startswith("error: fold 1 of 3 failed with exit code 2")


@pytest.mark.slow
def test_invalid_options(tree: Path, here: Path) -> None:
    (here / "list.yaml").write_text("- 1")
    for options, message in {
        ("--config", "list.yaml"): "error: ",
        (
            "--data.root",
            str(tree),
            *QUICK,
            "--trainer.fast_dev_run",
            "true",
        ): "error: fold 1 of 3 wrote no run folder",
    }.items():
        assert run(here, [*options], 2)[-1].startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_fold_is_saved(tree: Path, here: Path, number: signal.Signals) -> None:
    endless = ["--data.root", str(tree), *QUICK, "--trainer.max_epochs", "100000"]
    last = here / "logs/folds/version_0/checkpoints/last.ckpt"
    process = start(["cross_validate", "--", *endless], here)
    until = time.monotonic() + 100
    while not last.exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(number)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "all progress is saved. Resume with" in shown and "Traceback" not in shown
    assert shown.splitlines()[-1] == "stopped; fold 1 of 5 is saved, earlier folds are complete"
