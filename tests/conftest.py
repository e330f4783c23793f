"""Shared fixtures: small datasets, and functions that run the command line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project import machine
from project.cli import main
from project.interface import ImageInput

REPOSITORY = Path(__file__).parent.parent
COLORS = {"blue": (30, 40, 200), "green": (30, 190, 40), "red": (210, 30, 40)}
QUICK = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--data.num_workers", "0", "--data.image_size", "8"),
    *("--trainer.precision", "32-true"),  # same results on every CPU
]


def write_images(folder: Path, count: int, color: tuple[int, int, int], size: int = 12) -> None:
    """Write noisy images of one color."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(folder.name))
    for number in range(count):
        pixels = np.clip(np.array(color) + noise.integers(-25, 25, (size, size, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")


def square(side: int) -> ImageInput:
    """Return the description of square images."""
    return ImageInput(side, side)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, so that no process waits for one of them in the end."""
    items.sort(key=lambda item: item.path.name not in ("test_walk.py", "test_rename.py", "test_sweep.py"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A dataset directory ROOT/CLASS/IMAGE with three classes of 20 images."""
    root = tmp_path / "images"
    for name, color in COLORS.items():
        write_images(root / name, 20, color)
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(params=["with bf16", "without bf16"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A CPU with and without bf16 instructions; skipped if this one has none."""
    if request.param == "with bf16" and not machine.cpu_has_bf16():
        pytest.skip("this processor has no instructions for bf16")
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: request.param == "with bf16")
    return str(request.param)


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Run a command that must exit with code 2; return the last line on the screen."""

    def run(args: list[str]) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return error.strip().splitlines()[-1]

    return run


def fit(root: Path, *more: str) -> list[str]:
    """Return the arguments of a short `fit` on a dataset directory."""
    return ["fit", "--data.root", str(root), "--trainer.max_epochs", "2", "--data.batch_size", "16", *QUICK, *more]


def process(
    args: list[str], cwd: Path, timeout: float = 300, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run train.py in a subprocess, optionally through another program."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*prefix, sys.executable, str(REPOSITORY / "train.py"), *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def copy_repository(folder: Path) -> Path:
    """Copy the working tree of the repository without ignored files; skip the test if it has no git directory."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no git repository")
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, text=True).split("\0"):
        if name and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder
