"""Reading the files of a run folder; missing files yield None or empty values."""

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
    """A run folder NAME/version_N with test results, written by `fit` or `test`.

    Attributes:
        facts: Contents of test.json without the samples.
        samples: Selected samples with their `path`, by kind (mistakes, uncertain, sample), highest score first.
        predictions: Contents of test_predictions.csv; None without samples and for tasks other than classification.
        trained: Folder of the `fit` that wrote the checkpoint, often the same folder.
    """

    folder: Path
    name: str
    facts: dict[str, Any]
    samples: dict[str, list[dict[str, str]]]
    predictions: Predictions | None
    trained: Path | None

    @cached_property
    def config(self) -> dict[str, Any]:
        """Contents of config.yaml of the training run."""
        return self._read_trained("config.yaml", lambda file: yaml.safe_load(file.read_text())) or {}

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """Documents of environment.yaml of the training run, one per start or resume."""
        return self._read_trained(ENVIRONMENT, lambda file: list(yaml.safe_load_all(file.read_text()))) or []

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """Rows of metrics.csv of the training run, without empty cells."""
        return self._read_trained("metrics.csv", _metrics) or []

    @property
    def epochs(self) -> list[dict[str, float]]:
        """Rows of metrics.csv at the end of an epoch."""
        return [row for row in self.metrics if "epoch" in row and not any(name.startswith("test/") for name in row)]

    @property
    def best(self) -> dict[str, float] | None:
        """Row of the epoch of the best checkpoint: of equal values, that of the lowest val loss."""
        checkpoint = self.config.get("checkpoint") or {}
        monitor, sign = checkpoint.get("monitor"), -1 if checkpoint.get("mode") == "min" else 1
        rows = [row for row in self.epochs if (monitor or "val/loss") in row]
        if not rows:
            return None
        if not monitor:
            return rows[-1]
        return max(rows, key=lambda row: (sign * row[monitor], -row.get("val/loss", 0)))

    def _read_trained(self, name: str, read: Callable[[Path], Any]) -> Any:
        return None if self.trained is None else _read(self.trained / name, read)


def read_run(folder: Path) -> Run:
    """Read the folder of a tested run; `last` is the most recently tested run in logs/."""
    if folder == Path("last"):
        tested = sorted(Path("logs").glob(f"*/version_*/{TEST_PREDICTIONS}"), key=lambda file: file.stat().st_mtime_ns)
        if not tested:
            raise UserError("no tested run found in logs: give the folder of one")
        folder = tested[-1].parent
    if not (folder / TEST_PREDICTIONS).is_file():
        if not folder.is_dir():
            raise UserError(f"no such folder: {folder}")
        raise UserError(
            f"{folder} has no {TEST_PREDICTIONS}: give the folder of a tested run (logs/NAME/version_N), or run"
            f" `train.py test --ckpt_path {folder}/checkpoints/best.ckpt` and give the folder that it prints"
        )
    facts = _read(folder / TEST_SUMMARY, _json) or {}
    samples = facts.pop("samples", {})
    checkpoint = facts.get("checkpoint")
    trained = run_folder(Path(checkpoint)) if checkpoint and Path(checkpoint).is_file() else None
    if (folder / ENVIRONMENT).is_file():  # the folder of the `fit` itself, even if it was moved
        trained = folder
    elif trained is not None and (at_training := _read(trained / TEST_SUMMARY, _json)):
        facts["seconds_of_training"] = at_training.get("seconds_of_training")
    name = "/".join(folder.resolve().parts[-2:])
    return Run(folder, name, facts, samples, _predictions(folder / TEST_PREDICTIONS, facts.get("class_names")), trained)


def _read(file: Path, read: Callable[[Path], Any]) -> Any:
    """Return the parsed file; None if it is missing, truncated or corrupted."""
    try:
        return read(file)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _metrics(file: Path) -> list[dict[str, float]]:
    with file.open(newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def _predictions(file: Path, class_names: list[str] | None) -> Predictions | None:
    rows = read_table(file, ["path"])
    if not rows or (class_names is None and "class_probability" not in rows[0]):
        return None
    read_table(file, ["class", "predicted", "probability", "class_probability"])  # raises if one is missing
    names = class_names or sorted({row[column] for row in rows for column in ("class", "predicted")})
    index = {name: i for i, name in enumerate(names)}
    try:
        labels = [np.array([index[row[column]] for row in rows]) for column in ("class", "predicted")]
        probabilities = [np.array([float(row[name]) for row in rows]) for name in ("probability", "class_probability")]
        return Predictions(names, [row["path"] for row in rows], *labels, *probabilities)
    except (KeyError, ValueError) as error:  # unknown class, not a number
        raise UserError(f"{file} is corrupted or was edited ({error}): write it again with `train.py test`") from error
