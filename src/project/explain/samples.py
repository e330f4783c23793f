"""Samples to explain, and what the results of `explain` have in common for all kinds of input."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from project.interface import Batch, ImageInput, Split
from project.modules.tasks import Task
from project.runs.job import Trained

MAX_EMBEDDED = 500  # maximum number of samples for embeddings
MAX_OUTPUTS = 6  # maximum number of predicted labels, or of values, to explain for each sample
AREAS = ("deletion", "insertion", "random_deletion", "random_insertion")


def prepare(trained: Trained, count: int) -> Batch:
    """Load a trained model onto the trainer's device; return up to `count` evenly spaced samples on it.

    With the training dataset, the samples are from its test split (val if it has none). With any other folder, classes
    of images are the names of parent folders, -1 if none is a class; labels and values are unknown.
    """
    own, model, data = trained.load("predict"), trained.module, trained.data
    model.tta = "none"
    device = trained.trainer.strategy.root_device
    split: Split | Literal[""] = ("test" if data.split_sizes()["test"] else "val") if own else ""
    inputs, target, index = data.on_after_batch_transfer(data.sample(count, split), 0)  # it may set the target
    names = model.task.target.names
    if not own and model.task.target.kind != "classes":
        target = torch.full((len(target), len(names)), torch.nan)
    elif not own and isinstance(data.description.input, ImageInput):
        class_ids = {name: number for number, name in enumerate(names)}
        folders = [Path(data.path(row)).parent.parts for row in index.tolist()]
        found = [next((class_ids[part] for part in reversed(parts) if part in class_ids), -1) for parts in folders]
        target = torch.tensor(found)
    return Batch(inputs.to(device), target.to(device), index)


@torch.no_grad()
def describe(trained: Trained, batch: Batch) -> dict[str, list[str]]:
    """Return target, prediction and name of each sample as columns."""
    model, task = trained.module, trained.module.task
    predictions = torch.cat([model.predictions(part) for part in batch.inputs.split(64)])
    return {
        task.explained_columns[0]: [task.target_text(target) for target in batch.target],
        "predicted": [task.predicted_text(each) for each in predictions],
        trained.data.key: [trained.data.path(row) for row in batch.index.tolist()],
    }


def is_known(target: Tensor) -> Tensor:
    """Return whether anything is known about the target of each sample, bool (N,)."""
    return ~target.reshape(len(target), -1).isnan().all(1) if target.is_floating_point() else target >= 0


def select(batch: Batch, rows: Any) -> Batch:
    """Return some rows of a batch, given by their numbers or as a mask."""
    return Batch(*(values[rows.cpu() if isinstance(rows, Tensor) else rows] for values in batch))


def evenly_spaced(batch: Batch, count: int) -> Batch:
    """Return at most `count` evenly spaced samples."""
    return select(batch, torch.linspace(0, len(batch.index) - 1, min(count, len(batch.index))).round().long())


def cells(row: dict[str, Any], task: Task) -> dict[str, Any]:
    """Return a row of a table; values, which have any unit, with significant digits instead of decimals."""
    if task.score_format.endswith("%"):
        return row
    return {name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in row.items()}


def print_areas(rows: list[dict[str, Any]], task: Task) -> None:
    """Print the mean areas of each method and of the random baseline."""
    heading = f"predicted {task.explained_columns[1]}, mean area"
    print(f"{heading:<28}{'deletion':>9}{'random':>8}{'insertion':>11}{'random':>8}")
    for method in dict.fromkeys(row["method"] for row in rows):
        areas = np.array([[row[name] for name in AREAS] for row in rows if row["method"] == method])
        deletion, insertion, random_deletion, random_insertion = areas.mean(0)
        print(f"{method:<28}{deletion:>9.3f}{random_deletion:>8.3f}{insertion:>11.3f}{random_insertion:>8.3f}")
    print("more faithful than a random baseline: deletion below random, insertion above random")
