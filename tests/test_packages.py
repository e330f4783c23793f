"""Removal of optional packages with scripts/remove_packages.py."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from scripts.remove_packages import BELONGS
from tests.conftest import copy_repository, fit

CHECK = """
from importlinter.cli import lint_imports
from project.cli import main
main(["--help"])
assert lint_imports() == 0
"""
RUN = """
import sys
tree, quick = sys.argv[1], sys.argv[2:]
main(quick)
main(["test", "--ckpt_path", "best", "--trainer.accelerator", "cpu"])
main(["predict", "--ckpt_path", "best", "--data.root", tree + "/red", "--trainer.accelerator", "cpu"])
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the working tree."""
    return copy_repository(tmp_path / "copy")


def run(copy: Path, *args: str) -> str:
    """Run a Python module or script in the copy, with only its package on the path, and return its output."""
    environment = {**os.environ, "PYTHONPATH": f"{copy / 'src'}:{copy}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *args], cwd=copy, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", BELONGS)
def test_project_works_without_package(name: str, copy: Path, tree: Path) -> None:
    output = run(copy, "scripts/remove_packages.py", name)
    assert not (copy / "src" / "project" / name).exists() and f"removed: {name}" in output
    package = import_module(f"project.{name}")
    adds_to_runs = hasattr(package, "CALLBACKS") or hasattr(package, "OPTIONS")  # else only commands and class paths
    quick = fit(tree, "--trainer.max_epochs", "1", "--test_after_fit", "false")
    output = run(copy, "-c", CHECK + RUN * adds_to_runs, str(tree), *quick)
    assert " KEPT" in output and (not adds_to_runs or ("accuracy" in output and "predictions: " in output))
    assert not any(line.startswith(f"  {name} ") for line in output.splitlines())


def test_core_does_not_import_optional_packages() -> None:
    code = "import sys; from project.cli import training; print([m for m in sys.modules if m.startswith('project.')])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    ).stdout
    loaded = {name for name in BELONGS if f"'project.{name}" in output}
    assert not loaded


def test_unknown_package_is_rejected(copy: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/remove_packages.py", "modules"], cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 2 and "modules" in done.stderr and (copy / "src/project/modules").is_dir()
