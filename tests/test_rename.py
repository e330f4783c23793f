"""Renaming of the package; deleted together with scripts/rename.py."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from project.cli.commands import commands
from scripts.remove_packages import BELONGS
from tests.conftest import REPOSITORY, copy_repository, fit

Run = Callable[..., subprocess.CompletedProcess[str]]
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A committed copy of the working tree."""
    folder = copy_repository(tmp_path / "clone")
    subprocess.run([*GIT, "init", "-q"], cwd=folder, check=True)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    subprocess.run([*GIT, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*GIT, "commit", "-qm", "all"], cwd=folder, check=True)


@pytest.fixture
def run(clone: Path) -> Run:
    """Function that runs a Python module or script in the clone, with only its package on the path."""

    def run_python(*args: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(clone / "src"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *args], cwd=clone, env=environment, capture_output=True, text=True, timeout=900
        )

    return run_python


def check_style(clone: Path, run: Run) -> None:
    """Format as `make rename` does, then run the checks of `make lint` that need no other environment."""
    assert run("-m", "ruff", "check", "--select", "I", "--fix", ".").returncode == 0
    assert run("-m", "ruff", "format", ".").returncode == 0
    lint_imports = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    for check in (["-m", "ruff", "check", "."], ["-c", lint_imports]):
        done = run(*check)
        assert done.returncode == 0, done.stdout + done.stderr
    commit(clone)


@pytest.mark.slow
def test_renamed_package_without_two_packages(clone: Path, run: Run, tree: Path) -> None:
    done = run("scripts/rename.py", "my_birds", "serve", "privacy")
    assert done.returncode == 0 and "removed: serve" in done.stdout, done.stderr
    check_style(clone, run)
    modules = "|".join(sorted({path.stem for path in (clone / "src" / "my_birds").iterdir()} - {"__init__"}))
    old = rf"\bproject\.({modules})\b|\b(from|import|-m|src/) ?project\b|\"-m\", \"project|\bproject-serve"
    old += r"|[\"']project\.(?!privacy)|scripts/rename|make rename"
    matches = subprocess.run(
        ["git", "grep", "-nP", old, "--", ":!CHANGELOG.md"], cwd=clone, capture_output=True, text=True
    ).stdout
    assert not matches
    readme = " ".join((clone / "README.md").read_text().split())
    assert "serve" not in readme.replace("export and serve", "") and "privacy" not in readme
    train = "import runpy; runpy.run_path('train.py', run_name='__main__')"
    predict = f"import my_birds; print(len(my_birds.load('best').predict({str(tree)!r})), 'predictions')"
    done = run("-c", f"{train}; {predict}", *fit(tree, "--config", "configs/convnet.yaml"))
    assert "report" in done.stdout and done.stdout.endswith("60 predictions\n"), done.stderr
    assert "usage: train.py COMMAND" in run("-m", "my_birds").stdout
    commands = ["tests/test_docs.py", "-k", "commands"]
    done = run("-m", "pytest", "-p", "no:cacheprovider", *commands)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
def test_tests_pass_in_renamed_core(clone: Path, run: Run) -> None:
    """All tests can be imported; the quick tests of those files that mention an optional package are run."""
    names = {*BELONGS, *(name for name, (path, *_) in commands().items() if path.split(".")[1] in BELONGS)}
    mention = re.compile(rf"\bcommands\(\)|\bproject\.({'|'.join(BELONGS)})\b|[\"']({'|'.join(names)})[\"']")
    files = [file for file in (clone / "tests").rglob("test_*.py") if mention.search(file.read_text())]
    done = run("scripts/rename.py", "my_birds", *BELONGS)
    assert done.returncode == 0, done.stderr
    check_style(clone, run)
    pytest_run = ["-m", "pytest", "-p", "no:cacheprovider", "-q"]
    done = run(*pytest_run, "--collect-only")
    assert done.returncode == 0, done.stdout[-3000:]
    left = [str(file) for file in files if file.is_file()]
    done = run(*pytest_run, "-m", "not slow", *left)
    assert done.returncode == 0 and "test_cli" in " ".join(left), done.stdout[-3000:]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *(
            ("torch", "already"),
            ("json", "already"),
            ("tests", "already"),
            ("project", "already"),
            ("", "missing name"),
        ),
        *(("class", "keyword of Python"), ("2birds", "not a package name"), ("my-birds", "try NAME=my_birds")),
        ("My Birds", "try NAME=my_birds"),
    ],
)
def test_invalid_name_is_rejected(name: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "rename.py"), name], capture_output=True, text=True
    )
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_rename_requires_clean_working_tree(clone: Path, run: Run) -> None:
    (clone / "README.md").write_text("edited")
    done = run("scripts/rename.py", "my_birds")
    assert done.returncode == 2 and "commit or stash them first" in done.stderr and "README.md" in done.stderr
    assert (clone / "src" / "project").is_dir() and (clone / "README.md").read_text() == "edited"
