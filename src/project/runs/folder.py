"""Names of run folders and of the files in them."""

import re
from pathlib import Path

from project.errors import UserError

CHECKPOINTS, ENVIRONMENT = "checkpoints", "environment.yaml"
TEST_PREDICTIONS, TEST_SUMMARY = "test_predictions.csv", "test.json"
"""Files that a test writes: one row per sample, and the other results that a report needs."""


def reserve_version(root: Path, name: str) -> int:
    """Create ROOT/NAME/version_N and return N; runs that start at the same time get different folders."""
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
    """Raise a UserError if a run name is not a valid folder name."""
    if name is not None and (not name.strip() or name.startswith(".") or "/" in name or "\\" in name):
        raise UserError(
            f"run_name must be a folder name without slashes or a leading dot, got '{name}'; set the parent folder of"
            " all runs with --trainer.default_root_dir"
        )


def run_folder(checkpoint: Path) -> Path | None:
    """Return the run folder of a checkpoint; None if the checkpoint is not inside a run folder."""
    run = checkpoint.parent.parent  # not resolved: ModelCheckpoint drops its best score if `dirpath` changes
    run = run if len(run.parts) > 1 else run.resolve()
    return run if checkpoint.parent.name == CHECKPOINTS and re.fullmatch(r"version_\d+", run.name) else None


def output_folder(checkpoint: Path) -> Path:
    """Return where to write files made from a checkpoint: its run folder, or else the folder of the checkpoint."""
    return run_folder(checkpoint) or checkpoint.parent
