"""Reading the files of a run folder; missing files yield None or empty values."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from project.errors import UserError
from project.files import read_rows
from project.runs.folder import ENVIRONMENT, TEST_PREDICTIONS, TEST_SUMMARY, run_folder
from project.runs.label_predictions import LabelPredictions
from project.runs.predictions import Predictions
from project.runs.value_predictions import ValuePredictions

AnyPredictions = Predictions | LabelPredictions | ValuePredictions
READERS: dict[str, tuple[str, type[AnyPredictions]]] = {
    "classes": ("class_names", Predictions),
    "labels": ("label_names", LabelPredictions),
    "values": ("value_names", ValuePredictions),
}
"""Field with the names, and class of the predictions, by kind of target."""
CLASS_COLUMNS = ["class", "predicted", "probability", "class_probability"]
"""Columns after the name of the sample."""


@dataclass(frozen=True)
class Run:
    """A run folder NAME/version_N with test results, written by `fit` or `test`.

    Attributes:
        facts: Contents of test.json without the target and the samples.
        samples: Selected samples with their `path`, by kind (mistakes, uncertain, sample), highest score first.
        predictions: Contents of test_predictions.csv; None without samples and for targets other than these.
        trained: Folder of the `fit` that wrote the checkpoint, often the same folder.
        target: Fields of the target of the data, and its `kind`; found in the table of predictions without test.json.
        rows: Number of tested samples.
        key: First column of test_predictions.csv: `path`, or what the samples are if they have none, e.g. `text`.
    """

    folder: Path
    name: str
    facts: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    predictions: AnyPredictions | None
    trained: Path | None
    target: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    key: str = "path"

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
    target, samples = facts.pop("target", {}), facts.pop("samples", {})
    checkpoint = facts.get("checkpoint")
    trained = run_folder(Path(checkpoint)) if checkpoint and Path(checkpoint).is_file() else None
    if (folder / ENVIRONMENT).is_file():  # the folder of the `fit` itself, even if it was moved
        trained = folder
    elif trained is not None and (at_training := _read(trained / TEST_SUMMARY, _json)):
        facts["seconds_of_training"] = at_training.get("seconds_of_training")
    name = "/".join(folder.resolve().parts[-2:])
    header, rows = read_rows(folder / TEST_PREDICTIONS, [])
    target = target or _target(header)
    predictions = _predictions(folder, target, header, rows)
    return Run(folder, name, facts, samples, predictions, trained, target, len(rows), header[0] if header else "path")


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


def _target(header: list[str]) -> dict[str, Any]:
    """Return the target that the columns of test_predictions.csv tell; empty for a custom one."""
    columns, half = header[1:], len(header) // 2
    if columns[:4] == CLASS_COLUMNS:
        return {"kind": "classes"}
    if columns[:2] == ["labels", "predicted"]:
        return {"kind": "labels", "label_names": columns[2 : half + 1]}
    if columns and columns[half:] == [f"predicted {name}" for name in columns[:half]]:
        return {"kind": "values", "value_names": columns[:half]}
    return {}


def _predictions(
    folder: Path, target: dict[str, Any], header: list[str], rows: list[list[str]]
) -> AnyPredictions | None:
    key, reader = READERS.get(target.get("kind", ""), ("", Predictions))
    if not rows or not key or (key not in target and key != "class_names"):  # none, or a custom target
        return None
    names, file = target.get(key, []), folder / TEST_PREDICTIONS
    columns = {
        "classes": CLASS_COLUMNS,
        "labels": ["labels", "predicted", *names, *(f"p({name})" for name in names)],
        "values": [*names, *(f"predicted {name}" for name in names)],
    }[target["kind"]]
    for place, column in enumerate(columns, start=1):  # by place, as a label may have the name of another column
        if header[place : place + 1] != [column]:
            raise UserError(f"{file} has no column '{column}' in place {place + 1}; it has {', '.join(header)}")
    try:
        return reader.from_rows(rows, names)
    except (KeyError, ValueError, IndexError) as error:  # unknown class, not a number
        raise UserError(f"{file} is corrupted or was edited ({error}): write it again with `train.py test`") from error
