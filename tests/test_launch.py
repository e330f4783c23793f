"""Training with several processes, started in different ways, compared with one process."""

import contextlib
import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from project.cli import main
from project.datamodules import DatasetBuilder
from project.interface import ImageInput
from tests.conftest import COLORS, QUICK, REPOSITORY, fit, write_images
from tests.runs import RUN, finish, is_rewritten, load, same_runs, start

pytestmark = [pytest.mark.slow, pytest.mark.ddp]
TORCHRUN = str(REPOSITORY / "scripts" / "torchrun.sh")
SAME = ["--model.channels_last", "false", "--data.batch_transforms", "[]"]


class Record(Callback):
    """Record on each process the split, the rows and one pixel of each training batch, and the network's buffers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):  # type: ignore[no-untyped-def]
        self.seen.append((trainer.current_epoch, batch.index, batch.inputs[:, 0, 0, 0]))

    def on_fit_end(self, trainer, pl_module):  # type: ignore[no-untyped-def]
        torch.save((self.seen, dict(pl_module.net.named_buffers())), f"seen{trainer.global_rank}.pt")

    def on_fit_start(self, trainer, pl_module):  # type: ignore[no-untyped-def]
        Path(f"split{trainer.global_rank}.txt").write_text(" ".join(trainer.datamodule.index.splits))


class Counted(DatasetBuilder):
    """A dataset that logs each time it is written."""

    def write(self, folder: Path) -> None:
        with Path("written.txt").open("a") as stream:
            stream.write("once\n")
        time.sleep(0.5)
        for name, color in COLORS.items():
            write_images(folder / name, 20, color)


class Noted(torch.nn.Module):
    """An item transform, applied when images are packed, that logs each image."""

    fixed = True

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with Path("packed.txt").open("a") as stream:
            stream.write("x")
        return image


class Draw(torch.nn.Module):
    """A batch transform that returns its random numbers."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(image) + torch.rand(len(image), 1, 1, 1)


class Normed(torch.nn.Sequential):
    """A network with batch normalization."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        pool = torch.nn.AdaptiveAvgPool2d(1)
        super().__init__(torch.nn.BatchNorm2d(3), pool, torch.nn.Flatten(), torch.nn.Linear(3, num_classes))


def metrics_of(folder: Path) -> list[float]:
    """Return the metrics of the only run in a folder."""
    (run,) = (folder / "logs").glob("*/*")
    assert run.name == "version_0", "one run folder"
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    tags = ("val/loss", "val/acc", "train/loss", "train/acc", "test/loss", "test/acc")
    return [float(row[tag]) for row in rows for tag in tags if row[tag]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("logs/*/version_0/checkpoints/last.ckpt")
    loaded: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return loaded


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics_of(other) == pytest.approx(metrics_of(one), rel=1e-4, abs=1e-5) and len(metrics_of(one)) >= 10
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(other)[key], value, rtol=1e-4, atol=1e-5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: object) -> dict[str, str]:
    values = {name: str(value) for name, value in more.items()}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "GLOO_SOCKET_IFNAME": "lo", **values}


def run_together(commands: list[list[str]], folder: Path, environments: list[dict[str, str]]) -> str:
    """Run several commands at the same time and return their output."""
    started = [
        subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, env in zip(commands, environments, strict=True)
    ]
    try:
        shown = [one.communicate(timeout=240)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0] * len(started), "\n".join(shown)
    return "\n".join(shown)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "images"
    for name, color in COLORS.items():
        write_images(root / name, 21, color)
    return root


def train_one_process(images: Path, folder: Path, *more: str) -> Path:
    """Train on one process, with twice the batch size of the others and no gradient accumulation."""
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        main(fit(images, *SAME, "--data.batch_size", "20", *more))
    return folder


@pytest.fixture(scope="module")
def one(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_one_process(images, tmp_path_factory.mktemp("one"))


def arguments(images: Path, devices: int = 2) -> list[str]:
    """Return arguments for half the batch size and two accumulated batches, equivalent to `one`."""
    halves = ["--data.batch_size", "10", "--trainer.accumulate_grad_batches", "2"]
    return fit(images, *SAME, *halves, "--trainer.devices", str(devices))


def test_two_processes_train_like_one(images: Path, one: Path, tmp_path: Path) -> None:
    """45 images in batches of 10: the last batch has 5 images, 3 and 2 on two processes, and is a step by itself."""
    shown = finish([*arguments(images), "--trainer.strategy", "ddp"], tmp_path)
    assert "10 images (5 on each of 2 devices)" in shown
    assert shown.count("accuracy ") == 1, "one table"
    assert_same_run(one, tmp_path)


def test_two_nodes_by_torchrun(images: Path, one: Path, tmp_path: Path) -> None:
    settings = {"NODES": 2, "HEAD": f"127.0.0.1:{free_port()}", "NAME": "two", "DEVICES": 1}
    command = [TORCHRUN, *arguments(images)[1:]]
    shown = run_together([command] * 2, tmp_path, [environment(**settings)] * 2)
    assert shown.count("accuracy ") == 1 and "5 on each of 2 devices" in shown
    assert_same_run(one, tmp_path)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two simulated hosts: network namespaces joined by a virtual cable."""
    names = [f"scale{os.getpid()}{end}" for end in "ab"]
    ip = shutil.which("ip") or "/usr/sbin/ip"

    def run(*args: str) -> bool:
        return subprocess.run([ip, *args], capture_output=True).returncode == 0

    if os.geteuid() != 0 or not Path(ip).exists():
        pytest.skip("network namespaces need root and the command ip")
    try:
        created = all(run("netns", "add", name) for name in names)
        ends = ["type", "veth", "peer", "name", "eth0", "netns", names[1]]
        if not (created and run("link", "add", "eth0", "netns", names[0], *ends)):
            pytest.skip("network namespaces cannot be created on this machine")
        for number, name in enumerate(names, 1):
            assert run("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            assert run("-n", name, "link", "set", "eth0", "up") and run("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            run("netns", "del", name)


def test_two_hosts_with_lightnings_launcher(images: Path, one: Path, tmp_path: Path, hosts: list[str]) -> None:
    """The same command on both hosts, with the environment variables in docs/scale.md."""
    common = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": 29500, "GLOO_SOCKET_IFNAME": "eth0"}
    train = [sys.executable, str(REPOSITORY / "train.py"), *arguments(images, devices=1)]
    train += ["--trainer.strategy", "ddp", "--trainer.num_nodes", "2"]
    commands = [["ip", "netns", "exec", host, *train] for host in hosts]
    shown = run_together(commands, tmp_path, [environment(**common, NODE_RANK=rank) for rank in (0, 1)])
    assert shown.count("accuracy ") == 1
    assert_same_run(one, tmp_path)


def test_processes_share_split_and_preparation_but_no_random_numbers(tmp_path: Path) -> None:
    own = ["--data.source", "tests.test_launch.Counted", "--data.item_transforms+", "tests.test_launch.Noted"]
    own += ["--data.batch_transforms", "[tests.test_launch.Draw]", "--trainer.callbacks", "tests.test_launch.Record"]
    own += ["--model.net", "tests.test_launch.Normed"]
    common = ["--trainer.max_epochs", "2", "--data.batch_size", "16", "--test_after_fit", "false"]
    args = ["fit", *own, *common, *QUICK[:2], *QUICK[4:], "--trainer.devices", "2", "--trainer.strategy", "fsdp2"]
    finish(args, tmp_path)
    assert (tmp_path / "written.txt").read_text() == "once\n"
    assert len((tmp_path / "packed.txt").read_text()) == 60, "each image was decoded once"
    splits = [(tmp_path / f"split{rank}.txt").read_text() for rank in range(2)]
    assert splits[0] == splits[1] and splits[0].split().count("train") == 42
    (first, net), (second, other_net) = (torch.load(tmp_path / f"seen{rank}.pt") for rank in range(2))
    seen = [first, second]
    for epoch in range(2):
        rows = [int(row) for rank in seen for when, index, _ in rank if when == epoch for row in index]
        assert len(rows) == len(set(rows)) == 42, "every image once"
    assert all(torch.equal(value, other_net[key]) for key, value in net.items()), (
        "the same network, including batch norm statistics"
    )
    drawn = [pixel for rank in seen for _, _, pixels in rank for pixel in pixels.tolist()]
    assert len(set(drawn)) == len(drawn) == 2 * 42, "all random numbers differ between images, epochs and processes"


def wait_for(file: Path, running: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        assert running.poll() is None and time.monotonic() < end, f"no {file}"
        time.sleep(0.02)


def workers_of(agent: int) -> list[int]:
    shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent)], capture_output=True, text=True).stdout
    return sorted(int(pid) for pid in shown.split())


def test_torchrun_restarts_a_killed_process_and_resumes_its_run(images: Path, tmp_path: Path) -> None:
    other = tmp_path / "logs" / "other" / "version_7" / "checkpoints"
    args = [*arguments(images)[1:], "--trainer.max_epochs", "4"]
    command = [TORCHRUN, *args, "--trainer.callbacks", "tests.test_launch.Slow"]
    with (tmp_path / "shown.txt").open("w+") as shown:
        running = subprocess.Popen(
            command, cwd=tmp_path, env=environment(NAME="mine", DEVICES=2), stdout=shown, stderr=shown, text=True
        )
        try:
            wait_for(tmp_path / "logs/mine/version_0/checkpoints/last.ckpt", running)
            other.mkdir(parents=True)  # a newer checkpoint of another run must not be resumed
            (other / "last.ckpt").write_bytes(b"newer")
            os.kill(workers_of(running.pid)[-1], signal.SIGKILL)
            assert running.wait(timeout=240) == 0, (tmp_path / "shown.txt").read_text()
        finally:
            running.kill()
    shutil.rmtree(other.parents[1])
    text = (tmp_path / "shown.txt").read_text()
    assert text.count("accuracy ") == 1 and text.count("model     ConvNet") == 2, "started twice, one table"
    assert_same_run(train_one_process(images, tmp_path / "uninterrupted", "--trainer.max_epochs", "4"), tmp_path)


def test_a_signal_to_one_process_stops_all_within_an_epoch_and_they_resume(images: Path, tmp_path: Path) -> None:
    uninterrupted, stopped = tmp_path / "uninterrupted", tmp_path / "stopped"
    uninterrupted.mkdir()
    stopped.mkdir()
    args = [*fit(images), "--data.batch_size", "4", "--trainer.max_epochs", "3", "--test_after_fit", "false"]
    args += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.callbacks", "tests.test_launch.Slow"]
    finish(args, uninterrupted, GLOO_SOCKET_IFNAME="lo")
    running = start(args, stopped, GLOO_SOCKET_IFNAME="lo")
    last = stopped / RUN / "checkpoints" / "last.ckpt"
    saved = is_rewritten(last, times=2)
    while not saved():
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.01)
    time.sleep(0.7)
    os.kill(workers_of(running.pid)[-1], signal.SIGTERM)
    shown = running.communicate(timeout=120)[0]
    assert running.returncode == 128 + signal.SIGTERM, shown
    assert shown.count("stopped by SIGTERM after step") == 1 and "Traceback" not in shown, shown
    assert load(stopped / RUN)["global_step"] % 11, "within an epoch"
    finish(["fit", "--ckpt_path", "last"], stopped, GLOO_SOCKET_IFNAME="lo")
    same_runs(uninterrupted / RUN, stopped / RUN)


class Slow(Callback):
    """Slow down training, so that it can be interrupted."""

    def on_train_batch_end(self, *_: object) -> None:
        time.sleep(0.2)
