"""The logger of every run: TensorBoard and metrics.csv, in the run's folder."""

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
    """Return the logger of a new run, or of the run in the folder `continued`, from a step on."""
    if continued is not None:
        return RunLogger(str(continued.parent.parent), continued.parent.name, int(continued.name[8:]), from_step)
    # Before the processes have connected, the first process of every node has rank 0.
    first = getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"
    return RunLogger(str(root), name, reserve_version(root, name) if first else 0)


class RunLogger(TensorBoardLogger):
    """Logger that writes the same metrics to TensorBoard and to metrics.csv, which has one row per step.

    Args:
        save_dir: Folder of all runs.
        name: Name of the run.
        version: Version of the run: its folder is SAVE_DIR/NAME/version_N.
        from_step: Continue the run's curves from this step: metrics logged at or after it are dropped.
    """

    def __init__(self, save_dir: str, name: str, version: int, from_step: int | None = None) -> None:
        super().__init__(save_dir, name=name, version=version, purge_step=from_step)
        self.hyperparameters: dict[str, Any] = {}
        """Options that the run was started with, by dotted names."""
        self._rows: dict[int, dict[str, float]] = {}
        file = Path(self.log_dir) / "metrics.csv"
        if from_step is not None and file.is_file():
            with file.open(newline="") as stream:
                for row in csv.DictReader(stream):
                    if (step := int(row.pop("step"))) < from_step:
                        self._rows[step] = {name: float(value) for name, value in row.items() if value}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars of a step."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)
        row = self._rows.setdefault(int(step or 0), {})
        row |= {name: float(value) for name, value in metrics.items()}

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file and rewrite metrics.csv atomically."""
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
        """Do nothing: `log_results` adds the run to TensorBoard's HParams tab once it has metrics."""

    @rank_zero_only
    def log_results(self) -> None:
        """Add the run to TensorBoard's HParams tab, with the val and test metrics that it has logged."""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in self.hyperparameters.items()}
        metrics = {name for row in self._rows.values() for name in row if name.startswith(("val/", "test/"))}
        writer = self.experiment._get_file_writer()
        for summary in hparams(plain, dict.fromkeys(sorted(metrics), 0)):
            writer.add_summary(summary)
        self.experiment.flush()

    @rank_zero_only
    def discard_if_empty(self) -> None:
        """Remove the folder of a run that has no results, and parent folders that are empty then."""
        folder = Path(self.log_dir)
        parts = (f"{Path(TEST_PREDICTIONS).stem}.part", f"{TEST_SUMMARY}.part", "predictions.part")
        records = ("events.out.tfevents", "config.yaml", "split.csv", ENVIRONMENT, *parts)
        if folder.is_dir() and all(item.name.startswith(records) for item in folder.iterdir()):
            self.finalize("failed")
            shutil.rmtree(folder)
            for parent in (folder.parent, Path(self.root_dir).parent):
                with suppress(OSError):
                    parent.rmdir()
