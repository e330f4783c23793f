"""Tests of `train.py sweep`, in subprocesses: complete, crashed, pruned, interrupted and killed trials."""

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from project.cli import main
from tests.conftest import QUICK
from tests.forked import Forked

pytestmark = pytest.mark.slow
FOLDER = Path("logs/sweeps/space")


def start(here: Path, tree: Path, space: str, *options: str, trials: int) -> Forked:
    """Start a sweep in the current folder."""
    (here / "space.yaml").write_text(space)
    own = ["--space", "space.yaml", "--trials", str(trials)]
    quick = ["--data.root", str(tree), "--data.batch_size", "16", "--data.batch_transforms", "[]", *QUICK]
    args = ["sweep", *own, "--", *quick, *options]
    return Forked(args, here, {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"})


def finish(running: Forked, code: int = 0) -> str:
    """Wait for the process to end; return its output."""
    shown, _ = running.communicate(timeout=500)
    assert running.returncode == code, shown
    return shown


def wait_until(condition: Callable[[], bool], running: Forked) -> None:
    while not condition():
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.05)


def study() -> optuna.Study:
    return optuna.load_study(study_name="space", storage=f"sqlite:///{FOLDER}/study.db")


def rows(run: Path) -> list[dict[str, str]]:
    file = run / "metrics.csv"
    return list(csv.DictReader(file.open())) if file.is_file() else []


def epochs(run: Path) -> int:
    return sum(1 for row in rows(run) if row.get("val/acc"))


def alive(text: str) -> bool:
    return text in subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout


def test_sweep_with_a_crash_writes_a_config_that_runs(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "model.optimizer.lr: {low: 1e-4, high: 1e-2, log: true}\nmodel.label_smoothing: [0.0, 1.5]\n"
    shown = finish(start(here, tree, space, "--trainer.max_epochs", "2", trials=4))
    trials = study().trials
    crashed = [trial for trial in trials if trial.params["model.label_smoothing"] == 1.5]
    assert len(trials) == 4 and 0 < len(crashed) < 4
    assert all(("FAIL" if trial in crashed else "COMPLETE") == trial.state.name for trial in trials)
    assert all("label_smoothing must be" in trial.user_attrs["error"] for trial in crashed)
    assert shown.count("failed: error: model.label_smoothing must be") == len(crashed)
    for trial in trials:
        if trial not in crashed:
            metrics = rows(FOLDER / f"trial_{trial.number:04d}/version_0")
            assert trial.value == pytest.approx(max(float(row["val/acc"]) for row in metrics if row["val/acc"]))
    assert trials[0].params["model.optimizer.lr"] == 0.001, "the unchanged config is the first trial"
    assert (FOLDER / "history.png").is_file() and f"optuna-dashboard sqlite:///{FOLDER}/study.db" in shown
    best = study().best_trial
    config = yaml.safe_load((FOLDER / "best.yaml").read_text())
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == best.params["model.optimizer.lr"]
    main(["fit", "--config", str(FOLDER / "best.yaml")])
    assert "accuracy " in capsys.readouterr().out


def test_bad_trial_is_pruned(tree: Path, here: Path) -> None:
    FOLDER.mkdir(parents=True)
    known = optuna.create_study(storage=f"sqlite:///{FOLDER}/study.db", study_name="space", direction="maximize")
    rate = optuna.distributions.FloatDistribution(1e-9, 2e-9)
    values = dict.fromkeys(range(100), 1.1)
    for _ in range(5):
        params = {"model.optimizer.lr": 1e-9}
        known.add_trial(
            optuna.create_trial(
                value=1.1, params=params, distributions={"model.optimizer.lr": rate}, intermediate_values=values
            )
        )
    space = "model.optimizer.lr: {low: 1e-9, high: 2e-9}"
    shown = finish(start(here, tree, space, "--trainer.max_epochs", "100", trials=6))
    last = study().trials[-1]
    assert last.state == TrialState.PRUNED and "pruned" in shown
    run = FOLDER / "trial_0005/version_0"
    assert 25 < epochs(run) < 100, "pruned after the first quarter"
    assert not alive("trial_0005") and not list(run.glob("checkpoints/last.ckpt"))


def test_killed_worker_of_two(tree: Path, here: Path) -> None:
    space = "model.label_smoothing: {low: 0.0, high: 0.2}"
    first, second = (start(here, tree, space, "--trainer.max_epochs", "30", trials=4) for _ in range(2))

    def both_train() -> bool:
        return all(epochs(FOLDER / f"trial_000{number}/version_0") for number in range(2))

    wait_until(both_train, first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    finish(second)
    trials = study().trials
    by_state = [trial.state.name for trial in trials]
    assert by_state.count("COMPLETE") == 4 and by_state.count("FAIL") == 1 and len(trials) == 5, by_state
    (lost,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    (again,) = [trial for trial in trials if trial.user_attrs.get("again") is not None]
    assert again.user_attrs["again"] == lost.number and again.params == lost.params
    assert epochs(FOLDER / f"trial_{lost.number:04d}/version_0") < 30, "the trial ends with its worker"
    smoothings = [trial.params["model.label_smoothing"] for trial in trials if trial is not again]
    assert len(set(smoothings)) == 4, "workers try different options"


@pytest.mark.ddp
def test_interrupted_sweep_resumes_its_trial_on_two_processes(tree: Path, here: Path) -> None:
    space = "data.batch_size: [16, 32]"
    two = ["--trainer.max_epochs", "40", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    run = FOLDER / "trial_0000/version_0"
    stopped = start(here, tree, space, *two, trials=1)
    wait_until(lambda: epochs(run) >= 2, stopped)
    stopped.send_signal(signal.SIGINT)
    assert "run the same command again" in finish(stopped, 130).splitlines()[-1]
    before = epochs(run)
    assert before < 40 and not alive("trial_0000")
    finish(start(here, tree, space, *two, trials=1))
    assert [trial.state.name for trial in study().trials] == ["FAIL", "COMPLETE"]
    assert epochs(run) == 40 == len(study().trials[1].intermediate_values)
    assert [folder.name for folder in FOLDER.glob("trial_*/version_*")] == ["version_0"]


def test_invalid_option_is_reported_before_any_trial(tree: Path, here: Path) -> None:
    shown = finish(start(here, tree, "model.optimizer.lrr: [0.1]", trials=2), 2)
    assert shown.splitlines()[-1] == "error: space.yaml or the options: unknown key lrr; did you mean lr?"
    assert not (here / "logs").exists()
