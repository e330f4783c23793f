"""The logger of a run: TensorBoard and metrics.csv, in one folder."""

import csv
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from project.files import atomic_write
from project.runs.folder import ENVIRONMENT, TEST_PREDICTIONS, TEST_SUMMARY, reserve_version


def create_logger(root: Path, name: str, continued: Path | None, from_step: int | None) -> "RunLogger":
    """The logger of a new run of a name, or of one that is `continued` from a step."""
    if continued is not None:
        return RunLogger(str(continued.parent.parent), continued.parent.name, int(continued.name[8:]), from_step)
    # Until the processes know each other, the first one of a further machine takes itself for the first of all.
    first = getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"
    return RunLogger(str(root), name, reserve_version(root, name) if first else 0)


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
        self.hyperparameters: dict[str, Any] = {}
        """What the run was started with, by dotted names."""
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
        with atomic_write(file) as partial, partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["step", *names])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self._rows.items()))

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Nothing at the start: the run is entered in the hyperparameters tab once it has results."""

    @rank_zero_only
    def log_results(self) -> None:
        """Enter the run in TensorBoard's hyperparameters tab, beside the val and test scalars that it has logged."""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in self.hyperparameters.items()}
        metrics = {name for row in self._rows.values() for name in row if name.startswith(("val/", "test/"))}
        writer = self.experiment._get_file_writer()
        for summary in hparams(plain, dict.fromkeys(sorted(metrics), 0)):
            writer.add_summary(summary)
        self.experiment.flush()

    @rank_zero_only
    def discard_if_empty(self) -> None:
        """Take the folder of a run that came to nothing away again, and those above it that hold no other."""
        folder = Path(self.log_dir)
        parts = (f"{Path(TEST_PREDICTIONS).stem}.part", f"{TEST_SUMMARY}.part", "predictions.part")
        records = ("events.out.tfevents", "config.yaml", "split.csv", ENVIRONMENT, *parts)
        if folder.is_dir() and all(item.name.startswith(records) for item in folder.iterdir()):
            self.finalize("failed")
            shutil.rmtree(folder)
            for parent in (folder.parent, Path(self.root_dir).parent):
                with suppress(OSError):
                    parent.rmdir()
