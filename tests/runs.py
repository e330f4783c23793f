"""Runs in processes that are killed, and what makes two runs the same."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import REPOSITORY

RUN = Path("logs/run/version_0")
TIMING = "train/images_per_second"


def start(args: list[str], cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """train.py in a process group of its own."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *args]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(args: list[str], cwd: Path, **environment: str) -> str:
    """Run to the end; returns what was on the screen."""
    process = start(args, cwd, **environment)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    return shown


def go_on(cwd: Path) -> str:
    """Continue the newest run to its end, unless it came to its end before it could be killed."""
    process = start(["fit", "--ckpt_path", "last"], cwd)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0 or "is finished" in shown, shown
    return shown


def kill(process: subprocess.Popen[str], when: Callable[[], bool], how: int = signal.SIGKILL) -> str | None:
    """Signal a process and its workers once something is so; what it showed, None if it ended before."""
    done = False
    while process.poll() is None and not (done := when()):
        time.sleep(0.002)
    if done:
        os.killpg(process.pid, how)
    shown, _ = process.communicate(timeout=120)
    return shown if done and process.returncode != 0 else None


def saved_anew(file: Path, times: int = 1) -> Callable[[], bool]:
    """Becomes true when a file was written so many times."""
    seen = {file.stat().st_ino if file.exists() else 0}
    last = list(seen)

    def check() -> bool:
        now = file.stat().st_ino if file.exists() else last[0]
        if now != last[0]:
            last[0] = now
            last.append(now)
        return len(last) > times

    return check


def later(condition: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """Becomes true some time after a condition did."""
    since: list[float] = []

    def check() -> bool:
        if not since and condition():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return check


def same(one: Any, other: Any, where: str = "") -> None:
    """Assert that two nested values are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), f"{where}: {one.keys()} and {other.keys()}"
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), f"{where}: {one} and {other}"
        for number, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where}[{number}]")
    else:
        assert one == other, f"{where}: {one} and {other}"


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without timing."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [{name: value for name, value in row.items() if name != TIMING} for row in csv.DictReader(stream)]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, without timing."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != TIMING]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def load(run: Path, name: str = "last.ckpt") -> dict[str, Any]:
    """A checkpoint of a run."""
    saved: dict[str, Any] = torch.load(run / "checkpoints" / name, weights_only=True)
    return saved


def same_runs(one: Path, other: Path) -> None:
    """Assert that two runs ended with the same weights, optimizer, schedule, callbacks, metrics and curves."""
    same(rows(one), rows(other), "metrics.csv")
    same(curves(one), curves(other), "curves")
    for name in ("last.ckpt", "best.ckpt"):
        ends = [load(run, name) for run in (one, other)]
        for saved in ends:
            scores = [state["best_model_score"] for key, state in saved["callbacks"].items() if "Model" in key]
            saved["callbacks"] = {key: state for key, state in saved["callbacks"].items() if "Model" not in key}
            saved["callbacks"]["scores"] = scores
            saved["loops"] = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            saved["callback_metrics"].pop(TIMING, None)
            saved["datamodule_hyper_parameters"].pop("num_workers")
        same(*ends, name)
