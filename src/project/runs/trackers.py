"""Experiment trackers such as Weights & Biases and MLflow, which log beside the run's own logger."""

import os
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import yaml
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from project.errors import UserError
from project.runs.folder import ENVIRONMENT

BUILT_IN = ("CSVLogger", "TensorBoardLogger")


def configure_trackers(config: Any, run: Path, continued: bool) -> None:
    """Set the run name, folder and ID of the configured loggers, in place, unless the user set them.

    Args:
        config: `trainer.logger` as parsed: None, a boolean, one `class_path` and `init_args`, or a list of them.
        run: The run's folder, ROOT/NAME/version_N.
        continued: Whether the run is resumed, and with it the runs of its trackers.

    Raises:
        UserError: TensorBoard or CSV is configured, which every run logs to anyway.
    """
    root, ids = run.parent.parent.resolve(), _tracker_ids(run) if continued else {}
    for logger in config if isinstance(config, list) else [config]:
        if logger is None or isinstance(logger, bool):
            continue
        name, arguments = logger.class_path.rpartition(".")[2], cast(Any, logger.get("init_args") or {})
        if name in BUILT_IN:
            raise UserError(
                f"trainer.logger {name}: every run logs to TensorBoard and metrics.csv in its own folder already;"
                " leave it out"
            )
        defaults = {"name": str(Path(*run.parts[-2:])), "run_name": str(Path(*run.parts[-2:]))}
        defaults |= {key: ids[name] for key in ("id", "run_id") if name in ids}
        if name == "WandbLogger" and arguments.save_dir == ".":
            arguments.save_dir = str(run)
        if name == "MLFlowLogger" and not (arguments.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
            # One store for all runs, so that they can be compared.
            defaults |= {"tracking_uri": f"sqlite:///{root}/mlflow.db", "artifact_location": str(root / "mlflow")}
        for key, value in defaults.items():
            if key in arguments and arguments[key] is None:
                arguments[key] = value


def _tracker_ids(run: Path) -> dict[str, str]:
    """Return the IDs that trackers gave a run, by the name of the logger's class."""
    try:
        *_, start = yaml.safe_load_all((run / ENVIRONMENT).read_text(encoding="utf-8"))
        return dict(start.get("trackers") or {})
    except (OSError, ValueError, AttributeError, yaml.YAMLError):  # the run was killed while it started
        return {}


def start_trackers(trainer: L.Trainer, hyperparameters: dict[str, Any]) -> dict[str, str]:
    """Log the hyperparameters of a new run to all trackers; return the IDs of their runs, by the logger's class."""
    ids = {}
    for logger in trainer.loggers[1:]:
        if not trainer.global_step:  # MLflow refuses to change them
            logger.log_hyperparams(hyperparameters)
        ids[type(logger).__name__] = str(logger.version)
    return ids


def media_loggers(trainer: L.Trainer) -> list[Logger]:
    """Return the loggers that take images and figures; none on other processes than the first."""
    kinds = (TensorBoardLogger, WandbLogger, MLFlowLogger)
    return [logger for logger in trainer.loggers if isinstance(logger, kinds)] if trainer.is_global_zero else []


def log_image(loggers: list[Logger], tag: str, image: Image.Image, step: int) -> None:
    """Log an RGB image."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, np.asarray(image), step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [image], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, image, key=tag.replace("/", "."), step=step)


def log_figure(loggers: list[Logger], tag: str, figure: Any, step: int) -> None:
    """Log a matplotlib figure."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(tag, [figure], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_figure(logger.run_id, figure, f"{tag}/step_{step:06d}.png")
    for logger in loggers:  # last, as TensorBoard closes the figure
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(tag, figure, step)


def log_text(loggers: list[Logger], tag: str, text: str, step: int) -> None:
    """Log a text in Markdown."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(tag, text, step)
        elif isinstance(logger, WandbLogger):
            logger.log_text(tag, ["text"], [[text]], step=step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(logger.run_id, text, f"{tag}/step_{step:06d}.md")


def log_report(trainer: L.Trainer, file: Path) -> None:
    """Upload a run's report to all trackers that store files, and log where it is."""
    for logger in media_loggers(trainer):
        if isinstance(logger, WandbLogger):
            logger.experiment.save(str(file.resolve()), base_path=str(file.resolve().parent), policy="now")
            logger.experiment.summary["report"] = str(file.resolve())
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(file))
            logger.experiment.set_tag(logger.run_id, "report", str(file.resolve()))
