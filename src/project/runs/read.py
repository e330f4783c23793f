"""What a run's folder says of it; what is not there is None or empty, and the page says so."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from project.errors import UserError
from project.files import read_table
from project.runs.folder import ENVIRONMENT, TEST_PREDICTIONS, TEST_SUMMARY, run_folder
from project.runs.predictions import Predictions


@dataclass(frozen=True)
class Run:
    """A folder NAME/version_N that a test wrote into: that of a `fit`, or that of a `test` of a checkpoint.

    Attributes:
        facts: test.json without the samples.
        samples: Samples worth a look with their `path`, by kind: mistakes, uncertain, sample; best first.
        predictions: test_predictions.csv of a classification; None of another task, or without samples.
        trained: The folder of the `fit` that the checkpoint comes from; often the same.
    """

    folder: Path
    name: str
    facts: dict[str, Any]
    samples: dict[str, list[dict[str, str]]]
    predictions: Predictions | None
    trained: Path | None

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml of the training."""
        return self._of_training("config.yaml", lambda file: yaml.safe_load(file.read_text())) or {}

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """environment.yaml of the training: one entry for its start and one for each time it was continued."""
        return self._of_training(ENVIRONMENT, lambda file: list(yaml.safe_load_all(file.read_text()))) or []

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """metrics.csv of the training: a row a step, with the columns that it has."""
        return self._of_training("metrics.csv", _numbers) or []

    @property
    def epochs(self) -> list[dict[str, float]]:
        """The rows of metrics.csv that end an epoch of training."""
        return [row for row in self.metrics if "epoch" in row and not any(name.startswith("test/") for name in row)]

    @property
    def best(self) -> dict[str, float] | None:
        """The row of the epoch whose checkpoint is called best."""
        keep = self.config.get("checkpoint") or {}
        monitor, sign = keep.get("monitor"), -1 if keep.get("mode") == "min" else 1
        rows = [row for row in self.epochs if (monitor or "val/loss") in row]
        if not rows:
            return None
        return max(rows, key=lambda row: sign * row[monitor]) if monitor else rows[-1]

    def _of_training(self, name: str, read: Callable[[Path], Any]) -> Any:
        return None if self.trained is None else _read(self.trained / name, read)


def read_run(folder: Path) -> Run:
    """Read the folder of a tested run; `last` is the one in logs/ that was tested last."""
    if folder == Path("last"):
        tested = sorted(Path("logs").glob(f"*/version_*/{TEST_PREDICTIONS}"), key=lambda file: file.stat().st_mtime_ns)
        if not tested:
            raise UserError("no run in logs was tested: give the folder of one")
        folder = tested[-1].parent
    if not (folder / TEST_PREDICTIONS).is_file():
        if not folder.is_dir():
            raise UserError(f"no such folder: {folder}")
        raise UserError(
            f"{folder} has no {TEST_PREDICTIONS}: give the folder of a tested run (logs/NAME/version_N), or test it by"
            f" `train.py test --ckpt_path {folder}/checkpoints/best.ckpt` and give the folder that this names"
        )
    found = _read(folder / TEST_SUMMARY, _json) or {}
    samples = found.pop("samples", {})
    checkpoint = found.get("checkpoint")
    trained = run_folder(Path(checkpoint)) if checkpoint and Path(checkpoint).is_file() else None
    if (folder / ENVIRONMENT).is_file():  # this is the training's own folder, wherever it was moved
        trained = folder
    elif trained is not None and (at_training := _read(trained / TEST_SUMMARY, _json)):
        found["seconds_of_training"] = at_training.get("seconds_of_training")
    name = "/".join(folder.resolve().parts[-2:])
    return Run(folder, name, found, samples, _predictions(folder / TEST_PREDICTIONS, found.get("class_names")), trained)


def _read(file: Path, read: Callable[[Path], Any]) -> Any:
    """What a file says; None if it is not there, was cut off or is spoiled."""
    try:
        return read(file)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _numbers(file: Path) -> list[dict[str, float]]:
    with file.open(newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def _predictions(file: Path, class_names: list[str] | None) -> Predictions | None:
    rows = read_table(file, ["path"])
    if not rows or (class_names is None and "class_probability" not in rows[0]):
        return None
    read_table(file, ["class", "predicted", "probability", "class_probability"])  # says which one it lacks
    names = class_names or sorted({row[column] for row in rows for column in ("class", "predicted")})
    number = {name: i for i, name in enumerate(names)}
    try:
        labels = [np.array([number[row[column]] for row in rows]) for column in ("class", "predicted")]
        certainties = [np.array([float(row[name]) for row in rows]) for name in ("probability", "class_probability")]
        return Predictions(names, [row["path"] for row in rows], *labels, *certainties)
    except (KeyError, ValueError) as error:  # no such class, no number
        raise UserError(f"{file} was changed or cut off ({error}): write it again by `train.py test`") from error
