"""What callbacks and commands ask of a Trainer."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.callbacks import Timer

    from project.datamodules.base import DataModule
    from project.modules import Classifier


def module_of(trainer: "L.Trainer") -> "Classifier":
    """Return the trainer's LightningModule."""
    return cast("Classifier", trainer.lightning_module)


def data_of(trainer: "L.Trainer") -> "DataModule":
    """Return the trainer's datamodule."""
    return cast("DataModule", trainer.datamodule)  # type: ignore[attr-defined]


def time_limit(trainer: "L.Trainer") -> "Timer | None":
    """Return the Timer callback of `--trainer.max_time`, or None if there is no time limit."""
    from lightning.pytorch.callbacks import Timer

    return next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]


def test_folder(trainer: "L.Trainer") -> Path | None:
    """Return the run folder for test results, created if missing, or None if nothing should be written.

    All processes must call this, as the log directory is broadcast.
    """
    folder = trainer.log_dir
    if folder is None or trainer.logger is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
