"""A run's folder: where it is and what it logs."""

import csv
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from project.errors import UserError

CHECKPOINTS, ENVIRONMENT = "checkpoints", "environment.yaml"


def new_version(root: Path, name: str) -> int:
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


def refuse_odd_name(name: str | None) -> None:
    """See that a name of a run can be that of a folder, which `best`, `last` and `resume` then find.

    Raises:
        UserError: it cannot.
    """
    if name is not None and (not name.strip() or name.startswith(".") or "/" in name or "\\" in name):
        raise UserError(
            f"run_name '{name}' is to be the name of a folder, without a slash, nor a dot in front; where all runs lie"
            " is --trainer.default_root_dir"
        )


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in; None for one that was moved out of its run."""
    run = checkpoint.parent.parent  # as written: in a folder that reads otherwise, the best score so far is forgotten
    run = run if len(run.parts) > 1 else run.resolve()
    return run if checkpoint.parent.name == CHECKPOINTS and re.fullmatch(r"version_\d+", run.name) else None


def home_of(checkpoint: Path) -> Path:
    """Where what is made from a checkpoint is written: its run, or the folder of one that lies in none."""
    return run_of(checkpoint) or checkpoint.parent


def logger_of(root: Path, name: str, continued: Path | None, from_step: int | None) -> "RunLogger":
    """The logger of a run: a new one, or one that goes on.

    Args:
        root: The folder of all runs.
        name: Name of the experiment, for a new run.
        continued: The folder of the run that goes on; None for a new one.
        from_step: The step that it goes on from.
    """
    if continued is not None:
        return RunLogger(str(continued.parent.parent), continued.parent.name, int(continued.name[8:]), from_step)
    # Until the processes know each other, the first one of a further machine takes itself for the first of all.
    first = getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"
    return RunLogger(str(root), name, new_version(root, name) if first else 0)


class RunLogger(TensorBoardLogger):
    """Writes the same numbers to TensorBoard and to metrics.csv, one row a step, in one folder a run.

    Args:
        save_dir: The folder of all runs.
        name: Name of the experiment.
        version: Number of the run.
        from_step: Continue the run's curves from this step: what was logged at or after it is dropped.
    """

    def __init__(self, save_dir: str, name: str, version: int, from_step: int | None = None) -> None:
        super().__init__(save_dir, name=name, version=version, purge_step=from_step)
        self._rows: dict[int, dict[str, float]] = {}
        file = Path(self.log_dir) / "metrics.csv"
        if from_step is not None and file.is_file():
            with file.open(newline="") as stream:
                for row in csv.DictReader(stream):
                    if (step := int(row.pop("step"))) < from_step:
                        self._rows[step] = {name: float(value) for name, value in row.items() if value}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars at a step."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)
        row = self._rows.setdefault(int(step or 0), {})
        row |= {name: float(value) for name, value in metrics.items()}

    @rank_zero_only
    def save(self) -> None:
        """Bring metrics.csv and TensorBoard's file up to date on the disk; metrics.csv is whole at every moment."""
        self.experiment.flush()
        if not self._rows:
            return
        names = sorted({name for row in self._rows.values() for name in row}, key=lambda n: (n != "epoch", n))
        file = Path(self.log_dir) / "metrics.csv"
        partial = file.with_suffix(".partial")
        with partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["step", *names])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self._rows.items()))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Nothing at the start: the run is entered in the hyperparameters tab once it has results."""

    @rank_zero_only
    def enter_results(self, hyperparameters: dict[str, Any]) -> None:
        """Enter the run in TensorBoard's hyperparameters tab, beside the val and test scalars that it has logged."""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in hyperparameters.items()}
        metrics = {name for row in self._rows.values() for name in row if name.startswith(("val/", "test/"))}
        writer = self.experiment._get_file_writer()
        for summary in hparams(plain, dict.fromkeys(sorted(metrics), 0)):
            writer.add_summary(summary)
        self.experiment.flush()

    @rank_zero_only
    def discard_if_empty(self) -> None:
        """Take the folder of a run that came to nothing away again, and those above it that hold no other."""
        folder = Path(self.log_dir)
        records = (
            "events.out.tfevents",
            "config.yaml",
            "split.csv",
            ENVIRONMENT,
            "predictions.part",
            "test_predictions.part",
        )
        if folder.is_dir() and all(item.name.startswith(records) for item in folder.iterdir()):
            self.finalize("failed")
            shutil.rmtree(folder)
            for parent in (folder.parent, Path(self.root_dir).parent):
                with suppress(OSError):
                    parent.rmdir()
