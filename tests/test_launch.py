"""Several processes, started in every way that people start them, against one."""

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
from tests.conftest import COLORS, QUICK, REPOSITORY, fit, process, write_images
from tests.runs import RUN, finish, load, same_runs, saved_anew, start

pytestmark = [pytest.mark.slow, pytest.mark.ddp]
TORCHRUN = str(REPOSITORY / "scripts" / "torchrun.sh")
SAME = ["--model.channels_last", "false", "--data.batch_transforms", "[]"]


class Record(Callback):
    """Writes what each process had: its split, the rows of each training batch, a pixel of each image, its net."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):  # type: ignore[no-untyped-def]
        self.seen.append((trainer.current_epoch, batch.index, batch.inputs[:, 0, 0, 0]))

    def on_fit_end(self, trainer, pl_module):  # type: ignore[no-untyped-def]
        torch.save((self.seen, dict(pl_module.net.named_buffers())), f"seen{trainer.global_rank}.pt")

    def on_fit_start(self, trainer, pl_module):  # type: ignore[no-untyped-def]
        Path(f"split{trainer.global_rank}.txt").write_text(" ".join(trainer.datamodule.index.splits))


class Counted(DatasetBuilder):
    """A data set that notes each time it is written."""

    def write(self, folder: Path) -> None:
        with Path("written.txt").open("a") as stream:
            stream.write("once\n")
        time.sleep(0.5)
        for name, color in COLORS.items():
            write_images(folder / name, 20, color)


class Noted(torch.nn.Module):
    """An item transform, applied when images are packed, that notes each image."""

    fixed = True

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with Path("packed.txt").open("a") as stream:
            stream.write("x")
        return image


class Draw(torch.nn.Module):
    """A batch transform that shows what it draws."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(image) + torch.rand(len(image), 1, 1, 1)


class Normed(torch.nn.Sequential):
    """A net with batch norm."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        pool = torch.nn.AdaptiveAvgPool2d(1)
        super().__init__(torch.nn.BatchNorm2d(3), pool, torch.nn.Flatten(), torch.nn.Linear(3, num_classes))


def figures(place: Path) -> list[float]:
    """The figures of a run that has the folder to itself."""
    (run,) = (place / "logs").glob("*/*")
    assert run.name == "version_0", "one run folder"
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    tags = ("val/loss", "val/acc", "train/loss", "train/acc", "test/loss", "test/acc")
    return [float(row[tag]) for row in rows for tag in tags if row[tag]]


def weights(place: Path) -> dict[str, torch.Tensor]:
    (file,) = place.glob("logs/*/version_0/checkpoints/last.ckpt")
    loaded: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return loaded


def assert_same_run(one: Path, other: Path) -> None:
    assert figures(other) == pytest.approx(figures(one), rel=1e-4, abs=1e-5) and len(figures(one)) >= 10
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(other)[key], value, rtol=1e-4, atol=1e-5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: object) -> dict[str, str]:
    values = {name: str(value) for name, value in more.items()}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "GLOO_SOCKET_IFNAME": "lo", **values}


def together(commands: list[list[str]], place: Path, each: list[dict[str, str]]) -> str:
    """Start several commands at once; what they printed, together."""
    started = [
        subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, env in zip(commands, each, strict=True)
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


def alone(images: Path, place: Path, *more: str) -> Path:
    """The folder of a run of one process, which has twice the batch of the others and accumulates nothing."""
    place.mkdir(exist_ok=True)
    with contextlib.chdir(place):
        main(fit(images, *SAME, "--data.batch_size", "20", *more))
    return place


@pytest.fixture(scope="module")
def one(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alone(images, tmp_path_factory.mktemp("one"))


def arguments(images: Path, devices: int = 2) -> list[str]:
    """Half the batch, over all processes, and two batches a step: as `one` learns."""
    halves = ["--data.batch_size", "10", "--trainer.accumulate_grad_batches", "2"]
    return fit(images, *SAME, *halves, "--trainer.devices", str(devices))


def test_two_processes_learn_what_one_does(images: Path, one: Path, tmp_path: Path) -> None:
    """45 images in batches of 10: the last is of 5, on two processes 3 and 2, and makes a step by itself."""
    done = process([*arguments(images), "--trainer.strategy", "ddp"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 images (5 on each of 2 devices)" in done.stdout
    assert done.stdout.count("accuracy ") == 1, "one table"
    assert_same_run(one, tmp_path)


def test_two_nodes_by_torchrun(images: Path, one: Path, tmp_path: Path) -> None:
    settings = {"NODES": 2, "HEAD": f"127.0.0.1:{free_port()}", "NAME": "two", "DEVICES": 1}
    command = [TORCHRUN, *arguments(images)[1:]]
    shown = together([command] * 2, tmp_path, [environment(**settings)] * 2)
    assert shown.count("accuracy ") == 1 and "5 on each of 2 devices" in shown
    assert_same_run(one, tmp_path)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two hosts of our own, joined by a cable: network namespaces with an address each."""
    names = [f"scale{os.getpid()}{end}" for end in "ab"]
    ip = shutil.which("ip") or "/usr/sbin/ip"

    def run(*args: str) -> bool:
        return subprocess.run([ip, *args], capture_output=True).returncode == 0

    if os.geteuid() != 0 or not Path(ip).exists():
        pytest.skip("network namespaces need root and the command ip")
    try:
        made = all(run("netns", "add", name) for name in names)
        ends = ["type", "veth", "peer", "name", "eth0", "netns", names[1]]
        if not (made and run("link", "add", "eth0", "netns", names[0], *ends)):
            pytest.skip("this machine does not let us make network namespaces")
        for number, name in enumerate(names, 1):
            assert run("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            assert run("-n", name, "link", "set", "eth0", "up") and run("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            run("netns", "del", name)


def test_two_hosts_of_lightnings_own_launcher(images: Path, one: Path, tmp_path: Path, hosts: list[str]) -> None:
    """The same command on both, with the environment variables that docs/scale.md names."""
    common = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": 29500, "GLOO_SOCKET_IFNAME": "eth0"}
    train = [sys.executable, str(REPOSITORY / "train.py"), *arguments(images, devices=1)]
    train += ["--trainer.strategy", "ddp", "--trainer.num_nodes", "2"]
    commands = [["ip", "netns", "exec", host, *train] for host in hosts]
    shown = together(commands, tmp_path, [environment(**common, NODE_RANK=rank) for rank in (0, 1)])
    assert shown.count("accuracy ") == 1
    assert_same_run(one, tmp_path)


def test_processes_share_split_and_preparation_but_not_randomness(tmp_path: Path) -> None:
    own = ["--data.source", "tests.test_launch.Counted", "--data.item_transforms+", "tests.test_launch.Noted"]
    own += ["--data.batch_transforms", "[tests.test_launch.Draw]", "--trainer.callbacks", "tests.test_launch.Record"]
    own += ["--model.net", "tests.test_launch.Normed"]
    common = ["--trainer.max_epochs", "2", "--data.batch_size", "16", "--test_after_fit", "false"]
    args = ["fit", *own, *common, *QUICK[:2], *QUICK[4:], "--trainer.devices", "2", "--trainer.strategy", "fsdp2"]
    done = process(args, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "written.txt").read_text() == "once\n"
    assert len((tmp_path / "packed.txt").read_text()) == 60, "each image was decoded once"
    splits = [(tmp_path / f"split{rank}.txt").read_text() for rank in range(2)]
    assert splits[0] == splits[1] and splits[0].split().count("train") == 42
    (first, net), (second, other_net) = (torch.load(tmp_path / f"seen{rank}.pt") for rank in range(2))
    seen = [first, second]
    for epoch in range(2):
        rows = [int(row) for rank in seen for when, index, _ in rank if when == epoch for row in index]
        assert len(rows) == len(set(rows)) == 42, "every image once"
    assert all(torch.equal(value, other_net[key]) for key, value in net.items()), "one net, batch norm's statistics too"
    drawn = [pixel for rank in seen for _, _, pixels in rank for pixel in pixels.tolist()]
    assert len(set(drawn)) == len(drawn) == 2 * 42, "no two images, epochs or processes share a draw"


def wait_for(what: Path, running: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what.exists():
        assert running.poll() is None and time.monotonic() < end, f"no {what}"
        time.sleep(0.02)


def workers_of(agent: int) -> list[int]:
    shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent)], capture_output=True, text=True).stdout
    return sorted(int(pid) for pid in shown.split())


def test_a_dead_process_is_started_again_and_its_run_continues(images: Path, tmp_path: Path) -> None:
    other = tmp_path / "logs" / "other" / "version_7" / "checkpoints"
    args = [*arguments(images)[1:], "--trainer.max_epochs", "6"]
    command = [TORCHRUN, *args, "--trainer.callbacks", "tests.test_launch.Slow"]
    with (tmp_path / "shown.txt").open("w+") as shown:
        running = subprocess.Popen(
            command, cwd=tmp_path, env=environment(NAME="mine", DEVICES=2), stdout=shown, stderr=shown, text=True
        )
        try:
            wait_for(tmp_path / "logs/mine/version_0/checkpoints/last.ckpt", running)
            other.mkdir(parents=True)  # another run, whose last checkpoint is newer, must not be taken for this one
            (other / "last.ckpt").write_bytes(b"newer")
            os.kill(workers_of(running.pid)[-1], signal.SIGKILL)
            assert running.wait(timeout=240) == 0, (tmp_path / "shown.txt").read_text()
        finally:
            running.kill()
    shutil.rmtree(other.parents[1])
    text = (tmp_path / "shown.txt").read_text()
    assert text.count("accuracy ") == 1 and text.count("net       ConvNet") == 2, "started twice, one table"
    assert_same_run(alone(images, tmp_path / "whole", "--trainer.max_epochs", "6"), tmp_path)


def test_a_signal_to_one_of_several_stops_all_within_an_epoch_and_they_continue(images: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    args = [*fit(images), "--data.batch_size", "4", "--trainer.max_epochs", "3", "--test_after_fit", "false"]
    args += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.callbacks", "tests.test_launch.Slow"]
    finish(args, whole, GLOO_SOCKET_IFNAME="lo")
    running = start(args, stopped, GLOO_SOCKET_IFNAME="lo")
    last = stopped / RUN / "checkpoints" / "last.ckpt"
    saved = saved_anew(last, times=2)
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
    same_runs(whole / RUN, stopped / RUN)


class Slow(Callback):
    """Leaves time to be killed in."""

    def on_train_batch_end(self, *_: object) -> None:
        time.sleep(0.2)
