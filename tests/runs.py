"""Start, kill and resume runs in subprocesses, and compare runs."""

import csv
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.forked import Forked

RUN = Path("logs/run/version_0")
TIMING = ("train/images_per_second", "train/texts_per_second")


def start(args: list[str], cwd: Path, **environment: str) -> Forked:
    """Start train.py in its own process group."""
    return Forked(args, cwd, {**os.environ, **environment})


def finish(args: list[str], cwd: Path, **environment: str) -> str:
    """Run train.py to the end and return its output."""
    process = start(args, cwd, **environment)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    return shown


def resume(cwd: Path) -> str:
    """Resume the newest run and return its output; the run may be finished already."""
    process = start(["fit", "--ckpt_path", "last"], cwd)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0 or "is finished" in shown, shown
    return shown


def kill(process: Forked, when: Callable[[], bool], number: int = signal.SIGKILL) -> str | None:
    """Signal a process and its workers on a condition; return its output, or None if it ended before."""
    reached = False
    while process.poll() is None and not (reached := when()):
        time.sleep(0.002)
    if reached:
        os.killpg(process.pid, number)
    shown, _ = process.communicate(timeout=120)
    return shown if reached and process.returncode != 0 else None


def is_rewritten(file: Path, times: int = 1) -> Callable[[], bool]:
    """Return a condition that is true once a file has been replaced this many times."""
    inodes = [file.stat().st_ino if file.exists() else 0]

    def check() -> bool:
        inode = file.stat().st_ino if file.exists() else inodes[-1]
        if inode != inodes[-1]:
            inodes.append(inode)
        return len(inodes) > times

    return check


def delayed(condition: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """Return a condition that is true some seconds after another one."""
    since: list[float] = []

    def check() -> bool:
        if not since and condition():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return check


def same(one: Any, other: Any, where: str = "") -> None:
    """Assert that two nested values are bitwise equal."""
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
    """Return the rows of metrics.csv without timing."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [{name: value for name, value in row.items() if name not in TIMING} for row in csv.DictReader(stream)]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the TensorBoard scalars of a run without timing."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in TIMING]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def load(run: Path, name: str = "last.ckpt") -> dict[str, Any]:
    """Load a checkpoint of a run."""
    saved: dict[str, Any] = torch.load(run / "checkpoints" / name, weights_only=True)
    return saved


def same_runs(one: Path, other: Path) -> None:
    """Assert that two runs have the same weights, optimizer, scheduler and callback states, metrics and curves."""
    same(rows(one), rows(other), "metrics.csv")
    same(curves(one), curves(other), "curves")
    for name in ("last.ckpt", "best.ckpt"):
        ends = [load(run, name) for run in (one, other)]
        for saved in ends:
            scores = [state["best_model_score"] for key, state in saved["callbacks"].items() if "Best" in key]
            saved["callbacks"] = {key: state for key, state in saved["callbacks"].items() if "Best" not in key}
            saved["callbacks"]["scores"] = scores
            saved["loops"] = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            for timing in TIMING:
                saved["callback_metrics"].pop(timing, None)
            saved["datamodule_hyper_parameters"].pop("num_workers")
        same(*ends, name)
