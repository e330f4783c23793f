"""A run's folder: its name and what lies in it."""

import re
from pathlib import Path

from project.errors import UserError

CHECKPOINTS, ENVIRONMENT = "checkpoints", "environment.yaml"
TEST_PREDICTIONS, TEST_SUMMARY = "test_predictions.csv", "test.json"
"""What a test writes: a row a sample, and what else a report needs."""


def reserve_version(root: Path, name: str) -> int:
    """Reserve ROOT/NAME/version_N for this run and return N; two runs that start together get two folders."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(m[1]) for item in folder.iterdir() if (m := re.fullmatch(r"version_(\d+)", item.name))]
    version = max(taken, default=-1) + 1
    while True:
        try:
            (folder / f"version_{version}").mkdir()
            return version
        except FileExistsError:
            version += 1


def validate_run_name(name: str | None) -> None:
    """See that a name of a run can be that of a folder, which `best`, `last` and `resume` then find."""
    if name is not None and (not name.strip() or name.startswith(".") or "/" in name or "\\" in name):
        raise UserError(
            f"run_name '{name}' is to be the name of a folder, without a slash, nor a dot in front; where all runs lie"
            " is --trainer.default_root_dir"
        )


def run_folder(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in; None for one that was moved out of its run."""
    run = checkpoint.parent.parent  # as written: in a folder that reads otherwise, the best score so far is forgotten
    run = run if len(run.parts) > 1 else run.resolve()
    return run if checkpoint.parent.name == CHECKPOINTS and re.fullmatch(r"version_\d+", run.name) else None


def output_folder(checkpoint: Path) -> Path:
    """Where what is made from a checkpoint is written: its run, or the folder of one that lies in none."""
    return run_folder(checkpoint) or checkpoint.parent
