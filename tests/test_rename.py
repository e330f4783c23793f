"""The package under a name of one's own; goes away with the tool."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, copy_repository, fit

Run = Callable[..., subprocess.CompletedProcess[str]]
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files of the repository as they are now, committed."""
    folder = copy_repository(tmp_path / "clone")
    subprocess.run([*GIT, "init", "-q"], cwd=folder, check=True)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    subprocess.run([*GIT, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*GIT, "commit", "-qm", "all"], cwd=folder, check=True)


@pytest.fixture
def run(clone: Path) -> Run:
    """A Python module or script, in the clone and with its package alone."""

    def go(*args: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(clone / "src"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *args], cwd=clone, env=environment, capture_output=True, text=True, timeout=300
        )

    return go


@pytest.mark.slow
def test_a_renamed_package_works_and_the_old_name_is_gone(clone: Path, run: Run, tree: Path) -> None:
    done = run("scripts/rename.py", "my_birds")
    assert done.returncode == 0, done.stderr
    assert run("-m", "ruff", "check", "--select", "I", "--fix", ".").returncode == 0
    assert run("-m", "ruff", "format", ".").returncode == 0
    commit(clone)
    modules = "|".join(sorted({path.stem for path in (clone / "src" / "my_birds").iterdir()} - {"__init__"}))
    old = rf"\bproject\.({modules})\b|\b(from|import|-m|src/) ?project\b|\"-m\", \"project|\bproject-serve"
    old += r"|[\"']project\.|scripts/rename|make rename"
    left = subprocess.run(["git", "grep", "-nP", old], cwd=clone, capture_output=True, text=True).stdout
    assert not left
    lint_imports = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    for check in (["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-c", lint_imports]):
        done = run(*check)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run("train.py", *fit(tree, "--config", "configs/convnet.yaml"))
    assert done.returncode == 0 and "report" in done.stdout, done.stderr
    quick = ("tests/modules/test_initialize.py", "tests/datamodules/test_split.py", "tests/audit/test_groups.py")
    assert "usage: train.py COMMAND" in run("-m", "my_birds").stdout
    done = run("-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *quick)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *(("torch", "already"), ("json", "already"), ("tests", "already"), ("project", "already"), ("", "which name")),
        *(("class", "Python's own"), ("2birds", "no name"), ("my-birds", "try NAME=my_birds")),
        ("My Birds", "try NAME=my_birds"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, why: str) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "rename.py"), name], capture_output=True, text=True
    )
    assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_what_is_not_committed_is_not_renamed(clone: Path, run: Run) -> None:
    (clone / "README.md").write_text("my own words")
    done = run("scripts/rename.py", "my_birds")
    assert done.returncode == 2 and "commit or stash first" in done.stderr and "README.md" in done.stderr
    assert (clone / "src" / "project").is_dir() and (clone / "README.md").read_text() == "my own words"
