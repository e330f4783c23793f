"""A run that was killed ends as the one that was not: real processes, real kills."""

import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import QUICK, REPOSITORY

RUN = Path("logs/run/version_0")
EXACT = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.image_size", "8", "--data.batch_size", "8"),
    *("--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "4", "--last.every_n_steps", "3"),
    *("--model.net.dropout", "0.2", "--model.label_smoothing", "0.1", "--test_after_fit", "false"),
    *("--data.item_transforms+", "project.datamodules.RandomResizedCrop"),
    *("--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", "0.9"),
    *("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"),
    *("--trainer.callbacks.patience", "50", "--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", "0.01"),
]
"""Augmentation is on by default; also transforms by image, dropout, a schedule, averaged weights, early stopping."""
TIMING = "train/images_per_second"


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 50 images that are hard to tell apart, so that no figure comes to rest."""
    root, draw = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for label in range(3):
        (root / str(label)).mkdir()
        for number in range(50):
            pixels = draw.integers(0, 200 + 20 * label, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{number:02d}.png")
    return root


def start(args: list[str], cwd: Path, **more: Any) -> subprocess.Popen[str]:
    """train.py in a process group of its own."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment, start_new_session=True, **pipes, **more)


def finish(args: list[str], cwd: Path) -> str:
    """Run to the end; returns what was on the screen."""
    process = start(args, cwd)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    return shown


def kill(process: subprocess.Popen[str], when: Callable[[], bool]) -> bool:
    """Kill a process and its workers once something is so; False if it was done before."""
    while process.poll() is None:
        if when():
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def same(one: Any, other: Any, where: str = "") -> None:
    """Assert that two nested values are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without timing."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [{name: value for name, value in row.items() if name != TIMING} for row in csv.DictReader(stream)]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, without timing."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != TIMING]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def same_runs(one: Path, other: Path) -> None:
    """Assert that two runs ended with the same weights, optimizer, schedule, callbacks, metrics and curves."""
    assert rows(one) == rows(other)
    assert curves(one) == curves(other)
    for name in ("last.ckpt", "best.ckpt"):
        ends = [torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other)]
        for saved in ends:
            saved["callbacks"] = {key: state for key, state in saved["callbacks"].items() if "Model" not in key}
            saved["callback_metrics"].pop(TIMING, None)
            saved["loops"] = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        same(*ends, name)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    "length", [[], ["--trainer.max_epochs", "-1", "--trainer.max_steps", "36"]], ids=["epochs", "steps"]
)
def test_killed_at_random_moments(workers: str, length: list[str], noise: Path, tmp_path: Path) -> None:
    args = ["fit", "--data.root", str(noise), "--data.num_workers", workers, *EXACT, *length]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    trained = int(re.search(r"trained for (\d+) s", finish(args, whole))[1])  # type: ignore[index]
    last = killed / RUN / "checkpoints" / "last.ckpt"
    draw, kills = random.Random(), 0
    for _ in range(3):
        process = start(["fit", "--ckpt_path", "last"] if last.exists() else args, killed)
        kills += kill(process, later(saved_anew(last), draw.uniform(0, trained / 2)))
    assert kills >= 1
    go_on(killed)
    same_runs(whole / RUN, killed / RUN)


def saved_anew(file: Path) -> Callable[[], bool]:
    """Becomes true when a file is written."""
    before = file.stat().st_ino if file.exists() else 0
    return lambda: file.exists() and file.stat().st_ino != before


def later(condition: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """Becomes true some time after a condition did."""
    since: list[float] = []

    def check() -> bool:
        if not since and condition():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return check


def go_on(cwd: Path) -> None:
    """Continue the newest run to its end, unless it came to its end before it could be killed."""
    process = start(["fit", "--ckpt_path", "last"], cwd)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0 or "is finished" in shown, shown
