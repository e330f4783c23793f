"""Killed and resumed runs end identically to uninterrupted ones; uses real processes and signals."""

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

from tests.runs import RUN, delayed, finish, is_rewritten, kill, load, resume, same, same_runs, start

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
"""Default augmentation, item transforms, dropout, a schedule, weight averaging, early stopping."""
STEPS = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "36"]
WORKERS = ["--data.num_workers", "2"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a run on three similar classes of 50 noise images, so that metrics keep changing."""
    root, draw = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for label in range(3):
        (root / str(label)).mkdir()
        for number in range(50):
            pixels = draw.integers(0, 200 + 20 * label, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{number:02d}.png")
    return [*EXACT, "--data.root", str(root)]


@pytest.fixture(scope="session")
def uninterrupted(noise: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run of three epochs."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    shown = finish([*noise, "--data.num_workers", "0"], folder)
    seconds = int(re.search(r"trained for (\d+) s", shown)[1])  # type: ignore[index]
    (folder / "seconds").write_text(str(seconds))
    return folder


def kill_often(args: list[str], folder: Path, seconds: float) -> None:
    """Kill a run three times, each at a random time after it made progress."""
    draw, kills = random.Random(), 0
    for _ in range(3):
        continued = (folder / LAST).exists()
        process = start(["fit", "--ckpt_path", "last"] if continued else args, folder)
        kills += kill(process, delayed(is_rewritten(folder / LAST), draw.uniform(0, seconds))) is not None
    assert kills, "finished before it could be killed"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_random_moments(workers: str, noise: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    """The number of workers does not matter."""
    seconds = int((uninterrupted / "seconds").read_text())
    kill_often([*noise, "--data.num_workers", workers], tmp_path, seconds / 2)
    resume(tmp_path)
    same_runs(uninterrupted / RUN, tmp_path / RUN)


def test_killed_with_max_steps(noise: list[str], tmp_path: Path) -> None:
    """The last of three epochs is incomplete; a kill after its last step leaves its metrics unwritten, so retry."""
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    uninterrupted.mkdir()
    shown = finish([*noise, *STEPS, "--data.num_workers", "0"], uninterrupted)
    seconds = int(re.search(r"trained for (\d+) s", shown)[1])  # type: ignore[index]
    for _ in range(5):
        killed.mkdir()
        kill_often([*noise, *STEPS, *WORKERS], killed, seconds / 2)
        if "is finished" not in resume(killed):
            break
        shutil.rmtree(killed)
    same_runs(uninterrupted / RUN, killed / RUN)


def test_the_same_seed_gives_the_same_run(noise: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    finish([*noise, *WORKERS], tmp_path)
    same_runs(uninterrupted / RUN, tmp_path / RUN)


def test_killed_while_saving_a_checkpoint(noise: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    partial = tmp_path / RUN / "checkpoints" / ".next.ckpt.partial"
    written = is_rewritten(tmp_path / LAST, times=4)
    assert kill(start(noise, tmp_path), lambda: written() and partial.exists()) is not None
    assert partial.exists(), "killed while writing"
    resume(tmp_path)
    same_runs(uninterrupted / RUN, tmp_path / RUN)


def test_falls_back_from_a_corrupted_last_checkpoint(noise: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    assert kill(start([*noise, *WORKERS], killed), is_rewritten(killed / LAST, times=5)) is not None
    content = bytearray((killed / LAST).read_bytes())
    content[len(content) // 2] ^= 1
    for damage in ("truncate", "corrupt", "remove"):
        folder = shutil.copytree(killed, tmp_path / damage)
        if damage == "remove":
            (folder / LAST).unlink()
        else:
            (folder / LAST).write_bytes(content if damage == "corrupt" else content[: len(content) // 2])
        assert "falling back to previous.ckpt" in resume(folder), damage
        same_runs(uninterrupted / RUN, folder / RUN)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_finishes_the_step_and_saves(name: str, noise: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    """The workers receive the signal too, as from a terminal or a scheduler."""
    number = signal.Signals[name]
    process = start([*noise, *WORKERS, "--last.every_n_steps", "0"], tmp_path)
    shown = kill(process, delayed(is_rewritten(tmp_path / LAST, 2), 0.1), number)  # in the second epoch of three
    assert shown is not None, "finished before it received the signal"
    assert process.returncode == 128 + number, shown
    step = load(tmp_path / RUN)["global_step"]
    assert f"stopped by {name} after step {step}; all progress is saved" in shown and "Traceback" not in shown
    assert step > 0
    command = shown.rpartition("train.py ")[2].split()
    assert command[:2] == ["fit", "--ckpt_path"]
    finish(command, tmp_path)
    same_runs(uninterrupted / RUN, tmp_path / RUN)


def test_a_second_interrupt_stops_immediately(noise: list[str], tmp_path: Path) -> None:
    slow = ["--trainer.callbacks", "tests.test_resume.Slow"]
    process = start([*noise, *slow], tmp_path)
    while not (tmp_path / "slow").exists():
        assert process.poll() is None, process.communicate()[0]
    inode = (tmp_path / LAST).stat().st_ino
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)  # still in its step
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and "press Ctrl-C again" in shown
    assert (tmp_path / LAST).stat().st_ino == inode, "nothing was saved"


class Slow(L.Callback):
    """Callback that makes a step last."""

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: object) -> None:
        if trainer.global_step == 1:
            Path("slow").touch()
            time.sleep(100)


def test_slurm_requeues_the_job_and_it_resumes(noise: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "41", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    job |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "PATH": path}
    process = start([*noise, *WORKERS], tmp_path, **job)
    saved = delayed(is_rewritten(tmp_path / LAST), 0.3)
    while not saved():
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=60)
    assert "job requeued" in shown, shown
    assert (tmp_path / "asked").read_text().split() == ["requeue", "41"]
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    killed = (
        tmp_path / "logs" / "other" / "version_0" / "environment.yaml"
    )  # truncated, of a run that was killed at its start
    killed.parent.mkdir(parents=True)
    killed.write_text("--- {time: [")
    finish([*noise, *WORKERS], tmp_path, **job, SLURM_RESTART_COUNT="1")
    same_runs(uninterrupted / RUN, tmp_path / RUN)
    assert len(list((tmp_path / RUN).parent.iterdir())) == 1


@pytest.mark.parametrize("step", [20, 26])
def test_a_time_limit_loses_nothing(step: int, noise: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    """Stop within an epoch and at the end of one."""
    limit = ["--trainer.max_time", "00:00:00:05", "--trainer.callbacks", "tests.test_resume.UseUpTime"]
    finish([*noise, *WORKERS, *limit, "--trainer.callbacks.step", str(step)], tmp_path)
    assert load(tmp_path / RUN)["global_step"] == step
    process = start(["fit", "--ckpt_path", "last"], tmp_path)
    assert "time limit reached" in process.communicate(timeout=60)[0] and process.returncode == 2
    finish(["fit", "--ckpt_path", "last", "--trainer.max_time", "00:01:00:00"], tmp_path)
    ends = [load(folder / RUN) for folder in (uninterrupted, tmp_path)]
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        same(*(end[part] for end in ends), part)


class UseUpTime(L.Callback):
    """Callback that makes a step last until the time limit is reached."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: object) -> None:
        if trainer.global_step == self.step - 1:
            time.sleep(5)


def test_killed_while_packing(noise: list[str], tmp_path: Path) -> None:
    """Images are packed again if the cache is missing; a kill while packing leaves no incomplete file."""
    plain = [arg for arg in noise if "item_transforms" not in arg and "RandomResizedCrop" not in arg]
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    uninterrupted.mkdir()
    killed.mkdir()
    finish(plain, uninterrupted)
    assert kill(start(plain, killed), delayed(is_rewritten(killed / LAST), 0.3)) is not None
    shutil.rmtree(killed / "data")
    partial = delayed(lambda: bool(list(killed.glob("data/packed/*.partial"))), 0)
    assert kill(start(["fit", "--ckpt_path", "last"], killed), partial) is not None
    assert not list(killed.glob("data/packed/*.npy"))
    resume(killed)
    same_runs(uninterrupted / RUN, killed / RUN)
