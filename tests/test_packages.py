"""Each optional package can be deleted, and the rest works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.take_out import BELONGS
from tests.conftest import copy_repository, fit

SMOKE = """
import sys
from project.cli import main
from importlinter.cli import lint_imports
main(["--help"])
assert lint_imports() == 0
tree, quick = sys.argv[1], sys.argv[2:]
main(quick)
main(["test", "--ckpt_path", "best", "--trainer.accelerator", "cpu"])
main(["predict", "--ckpt_path", "best", "--data.root", tree + "/red", "--trainer.accelerator", "cpu"])
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files of the repository as they are now."""
    return copy_repository(tmp_path / "copy")


def run(copy: Path, *args: str) -> str:
    """A Python module or script in the copy, with its package alone; what it printed."""
    environment = {**os.environ, "PYTHONPATH": f"{copy / 'src'}:{copy}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *args], cwd=copy, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", BELONGS)
def test_the_rest_works_without(name: str, copy: Path, tree: Path) -> None:
    shown = run(copy, "scripts/take_out.py", name)
    assert not (copy / "src" / "project" / name).exists() and f"taken out: {name}" in shown
    shown = run(copy, "-c", SMOKE, str(tree), *fit(tree, "--trainer.max_epochs", "1", "--test_after_fit", "false"))
    assert "accuracy" in shown and "predictions: " in shown and " KEPT" in shown
    assert not any(line.startswith(f"  {name} ") for line in shown.splitlines())


@pytest.mark.slow
def test_the_quick_tests_pass_without_all_of_them(copy: Path) -> None:
    run(copy, "scripts/take_out.py", *BELONGS)
    run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-n", "2", "-m", "not slow")


def test_the_core_loads_no_package_that_is_not_used() -> None:
    code = "import sys; from project.cli import training; print([m for m in sys.modules if m.startswith('project.')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100).stdout
    loaded = {name for name in BELONGS if f"'project.{name}" in shown}
    assert not loaded


def test_a_package_that_is_none(copy: Path) -> None:
    done = subprocess.run([sys.executable, "scripts/take_out.py", "modules"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 2 and "modules" in done.stderr and (copy / "src/project/modules").is_dir()
