"""Tests of the interval, the arguments and the short names of learning-rate schedulers."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from project.cli import main
from tests.conftest import fit

STEPS = 3  # per epoch: 42 training images in batches of 16
WITHOUT_TEST = ["--test_after_fit", "false", "--trainer.log_every_n_steps", "1", "--trainer.max_epochs", "3"]


def options(name: str, **arguments: object) -> list[str]:
    """Return the options of a scheduler."""
    named = (word for key, value in arguments.items() for word in (f"--model.scheduler.{key}", str(value)))
    return ["--model.scheduler", name, *named]


def trained_rates(root: Path, *more: str) -> list[float]:
    """Train for three epochs; return the learning rate of each step, relative to the first."""
    main([*fit(root, *WITHOUT_TEST), *more])
    with Path("logs/run/version_0/metrics.csv").open(newline="") as stream:
        found = [float(row["train/learning_rate"]) for row in csv.DictReader(stream) if row["train/learning_rate"]]
    return [rate / found[0] for rate in found]


PLATEAU = {"monitor": "val/loss", "patience": 0, "threshold": 100, "threshold_mode": "abs", "factor": 0.5}
"""Only a fall of the loss by 100 counts as better, so that every validation but the first lowers the rate."""
COSINE = [(1 + np.cos(np.pi * step / (2 * STEPS))) / 2 for step in range(2 * STEPS)]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (options("CosineAnnealingWarmRestarts", T_0=2), [*COSINE, *COSINE[:STEPS]]),
        ([*options("CosineAnnealingWarmRestarts", T_0=2), "--model.scheduler_interval", "epoch"], [1, 0.5, 1]),
        ([*options("ExponentialLR", gamma=0.5), "--model.scheduler_interval", "step"], 0.5 ** np.arange(9)),
        (options("StepLR", step_size=2, gamma=0.5), [1, 1, 0.5]),
        (options("CyclicLR", base_lr=0.001, max_lr=0.003, step_size_up=2), [1, 2, 3, 2, 1, 2, 3, 2, 1]),
        (options("ReduceLROnPlateau", **PLATEAU), [1, 1, 0.5]),
    ],
)
def test_rates_of_steps_and_epochs(tree: Path, here: Path, scheduler: list[str], expected: list[float]) -> None:
    per_step = list(expected) if len(expected) == 3 * STEPS else np.repeat(expected, STEPS)
    assert trained_rates(tree, *scheduler) == pytest.approx(per_step, rel=1e-3)


def test_plateau_by_short_name_in_a_config_with_sparse_validation(tree: Path, here: Path) -> None:
    config = {"model": {"scheduler": {"class_path": "ReduceLROnPlateau", "init_args": PLATEAU}}}
    Path("plateau.yaml").write_text(yaml.safe_dump(config | {"trainer": {"check_val_every_n_epoch": 2}}))
    more = ["--config", "plateau.yaml", "--trainer.max_epochs", "5"]
    assert trained_rates(tree, *more) == pytest.approx([1.0] * 12 + [0.5] * 3)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (options("StepLR", step_size=0), "StepLR: step_size must not be 0"),
        (options("CosineAnnealingLR", T_max=0), "CosineAnnealingLR: T_max must not be 0"),
        (options("ReduceLROnPlateau", monitor="val/loss", factor=2), "ReduceLROnPlateau: Factor should be < 1.0."),
        (options("ReduceLROnPlateau"), "needs monitor: add --model.scheduler.monitor"),
        ([*options("OneCycleLR", max_lr=1), "--model.scheduler_interval", "epoch"], "OneCycleLR counts steps: remove"),
        (["--model.scheduler_interval", "step"], "scheduler_interval needs a model.scheduler"),
    ],
)
def test_mistakes_are_one_line_before_training(
    tree: Path, here: Path, scheduler: list[str], message: str, failing: Callable[[list[str]], str]
) -> None:
    assert message in failing(fit(tree, *scheduler))
    assert not list(here.glob("logs/*/*")), "no run is left behind"
