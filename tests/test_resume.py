"""A run that was killed ends as the one that was not: real processes, real kills."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from PIL import Image

from tests.runs import RUN, finish, go_on, kill, later, load, same, same_runs, saved_anew, start

LAST = RUN / "checkpoints" / "last.ckpt"
EXACT = [
    *("fit", "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.image_size", "8"),
    *("--trainer.precision", "32-true", "--data.batch_size", "8", "--trainer.max_epochs", "3"),
    *("--trainer.log_every_n_steps", "4", "--last.every_n_steps", "3", "--test_after_fit", "false"),
    *("--model.net.dropout", "0.2", "--model.label_smoothing", "0.1"),
    *("--data.item_transforms+", "project.datamodules.RandomResizedCrop"),
    *("--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", "0.9"),
    *("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"),
    *("--trainer.callbacks.patience", "50", "--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", "0.01"),
]
"""Augmentation is on by default; also transforms by image, dropout, a schedule, averaged weights, early stopping."""
STEPS = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "36"]
WORKERS = ["--data.num_workers", "2"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a run on three classes of 50 images that are hard to tell apart, so that no figure comes to rest."""
    root, draw = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for label in range(3):
        (root / str(label)).mkdir()
        for number in range(50):
            pixels = draw.integers(0, 200 + 20 * label, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{number:02d}.png")
    return [*EXACT, "--data.root", str(root)]


@pytest.fixture(scope="session")
def whole(noise: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never killed, of three epochs."""
    folder = tmp_path_factory.mktemp("whole")
    shown = finish([*noise, "--data.num_workers", "0"], folder)
    seconds = int(re.search(r"trained for (\d+) s", shown)[1])  # type: ignore[index]
    (folder / "seconds").write_text(str(seconds))
    return folder


def kill_often(args: list[str], folder: Path, seconds: float) -> None:
    """Kill a run three times, each time at another moment after it got a step further."""
    draw, kills = random.Random(), 0
    for _ in range(3):
        continued = (folder / LAST).exists()
        process = start(["fit", "--ckpt_path", "last"] if continued else args, folder)
        kills += kill(process, later(saved_anew(folder / LAST), draw.uniform(0, seconds))) is not None
    assert kills, "done before it could be killed"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_random_moments(workers: str, noise: list[str], whole: Path, tmp_path: Path) -> None:
    """Also: the number of workers changes nothing."""
    seconds = int((whole / "seconds").read_text())
    kill_often([*noise, "--data.num_workers", workers], tmp_path, seconds / 2)
    go_on(tmp_path)
    same_runs(whole / RUN, tmp_path / RUN)


def test_killed_where_steps_set_the_length(noise: list[str], tmp_path: Path) -> None:
    """The last of the three epochs is cut short; a kill after its last step leaves the row of that epoch unwritten."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    shown = finish([*noise, *STEPS, "--data.num_workers", "0"], whole)
    seconds = int(re.search(r"trained for (\d+) s", shown)[1])  # type: ignore[index]
    for _ in range(5):
        killed.mkdir()
        kill_often([*noise, *STEPS, *WORKERS], killed, seconds / 2)
        if "is finished" not in go_on(killed):
            break
        shutil.rmtree(killed)
    same_runs(whole / RUN, killed / RUN)


def test_the_same_seed_gives_the_same_run(noise: list[str], whole: Path, tmp_path: Path) -> None:
    finish([*noise, *WORKERS], tmp_path)
    same_runs(whole / RUN, tmp_path / RUN)


def test_killed_while_a_checkpoint_is_written(noise: list[str], whole: Path, tmp_path: Path) -> None:
    partial = tmp_path / RUN / "checkpoints" / ".next.ckpt.partial"
    written = saved_anew(tmp_path / LAST, times=4)
    assert kill(start(noise, tmp_path), lambda: written() and partial.exists()) is not None
    assert partial.exists(), "it was killed in the middle"
    go_on(tmp_path)
    same_runs(whole / RUN, tmp_path / RUN)


@pytest.mark.parametrize("harm", ["truncate", "corrupt", "remove"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    harm: str, noise: list[str], whole: Path, tmp_path: Path
) -> None:
    assert kill(start([*noise, *WORKERS], tmp_path), saved_anew(tmp_path / LAST, times=5)) is not None
    last = tmp_path / LAST
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "remove":
        last.unlink()
    else:
        last.write_bytes(content if harm == "corrupt" else content[: len(content) // 2])
    assert "going back to the one before it, previous.ckpt" in go_on(tmp_path)
    same_runs(whole / RUN, tmp_path / RUN)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_step_and_saves(name: str, noise: list[str], whole: Path, tmp_path: Path) -> None:
    """The workers get it too, as from a terminal or a scheduler."""
    number = signal.Signals[name]
    process = start([*noise, *WORKERS, "--last.every_n_steps", "0"], tmp_path)
    shown = kill(process, later(saved_anew(tmp_path / LAST, 2), 0.1), number)  # in the second epoch of three
    assert shown is not None, "done before it could be signalled"
    assert process.returncode == 128 + number, shown
    step = load(tmp_path / RUN)["global_step"]
    assert f"stopped by {name} after step {step}; nothing is lost" in shown and "Traceback" not in shown
    assert step > 0
    command = shown.rpartition("train.py ")[2].split()
    assert command[:2] == ["fit", "--ckpt_path"]
    finish(command, tmp_path)
    same_runs(whole / RUN, tmp_path / RUN)


def test_a_second_interrupt_stops_at_once(noise: list[str], tmp_path: Path) -> None:
    slow = ["--trainer.callbacks", "tests.test_resume.Slow"]
    process = start([*noise, *slow], tmp_path)
    while not (tmp_path / "slow").exists():
        assert process.poll() is None, process.communicate()[0]
    inode = (tmp_path / LAST).stat().st_ino
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)  # still in its step
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and "press Ctrl-C again" in shown
    assert (tmp_path / LAST).stat().st_ino == inode, "nothing was saved"


class Slow(L.Callback):
    """Makes a step last."""

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: object) -> None:
        if trainer.global_step == 1:
            Path("slow").touch()
            time.sleep(100)


def test_slurm_queues_the_job_again_and_it_continues(noise: list[str], whole: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "41", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    job |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "PATH": path}
    process = start([*noise, *WORKERS], tmp_path, **job)
    saved = later(saved_anew(tmp_path / LAST), 0.3)
    while not saved():
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=60)
    assert "the job is queued again" in shown, shown
    assert (tmp_path / "asked").read_text().split() == ["requeue", "41"]
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    begun = tmp_path / "logs" / "other" / "version_0" / "environment.yaml"  # by a run that was killed as it began
    begun.parent.mkdir(parents=True)
    begun.write_text("--- {time: [")
    finish([*noise, *WORKERS], tmp_path, **job, SLURM_RESTART_COUNT="1")
    same_runs(whole / RUN, tmp_path / RUN)
    assert len(list((tmp_path / RUN).parent.iterdir())) == 1


@pytest.mark.parametrize("step", [20, 26])
def test_a_time_limit_costs_nothing(step: int, noise: list[str], whole: Path, tmp_path: Path) -> None:
    """Within an epoch and at the end of one."""
    limit = ["--trainer.max_time", "00:00:00:09", "--trainer.callbacks", "tests.test_resume.UseUp"]
    finish([*noise, *WORKERS, *limit, "--trainer.callbacks.step", str(step)], tmp_path)
    assert load(tmp_path / RUN)["global_step"] == step
    process = start(["fit", "--ckpt_path", "last"], tmp_path)
    assert "its time is used up" in process.communicate(timeout=60)[0] and process.returncode == 2
    finish(["fit", "--ckpt_path", "last", "--trainer.max_time", "00:01:00:00"], tmp_path)
    ends = [load(folder / RUN) for folder in (whole, tmp_path)]
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        same(*(end[part] for end in ends), part)


class UseUp(L.Callback):
    """Makes one step last until the run's time is over."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: object) -> None:
        if trainer.global_step == self.step - 1:
            time.sleep(9)


def test_killed_while_packing_then_continued(noise: list[str], tmp_path: Path) -> None:
    """Packed images are made anew when the cache is gone; a kill in the middle of that leaves nothing behind."""
    plain = [arg for arg in noise if "item_transforms" not in arg and "RandomResizedCrop" not in arg]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    finish(plain, whole)
    assert kill(start(plain, killed), later(saved_anew(killed / LAST), 0.3)) is not None
    shutil.rmtree(killed / "data")
    partial = later(lambda: bool(list(killed.glob("data/packed/*.partial"))), 0)
    assert kill(start(["fit", "--ckpt_path", "last"], killed), partial) is not None
    assert not list(killed.glob("data/packed/*.npy"))
    go_on(killed)
    same_runs(whole / RUN, killed / RUN)
