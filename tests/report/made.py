"""Test results of synthetic runs, written without training."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.interface import ClassTarget, MultilabelTarget, ValueTarget


def made_run(folder: Path, classes: int, images: int, accuracy: float = 0.8, images_in: str = "images") -> Path:
    """Write test_predictions.csv and test.json of a classifier with the given accuracy."""
    draw = np.random.default_rng(0)
    names = [f"class {number:03d}" for number in range(classes)]
    label = np.arange(images) % classes
    correct = draw.random(images) < accuracy
    predicted = np.where(correct, label, (label + draw.choice([1, 2, classes // 2], images)) % classes)
    confidence = np.clip(draw.normal(np.where(correct, 0.85, 0.6), 0.12), 1 / classes, 1)
    rows = []
    for number, (c, p, q, hit) in enumerate(zip(label, predicted, confidence, correct, strict=True)):
        row = [f"{names[c]}/{number:06d}.jpg", names[c], names[p], f"{q:.6f}", f"{q if hit else (1 - q) / 2:.6f}"]
        each = np.full(classes if classes <= 100 else 0, (1 - q) / max(classes - 1, 1))
        each[p : p + 1] = q
        rows.append([*row, *(f"{x:.6f}" for x in each.tolist())])
    target = ClassTarget(names, [100] * classes)
    facts: dict[str, Any] = {"folder": images_in, "input": "224x224", "parameters": 25_557_032, "loss": 0.7}
    return write_run(folder, target, ("acc", ".2%"), rows, facts)


def made_labels(folder: Path, names: Sequence[str], images: int, noise: float = 1.0) -> Path:
    """Write the test results of a multi-label model; every tenth label is unknown."""
    draw = np.random.default_rng(0)
    truth = (draw.random((images, len(names))) < 0.3).astype(float)
    scores = 1 / (1 + np.exp(3 - 6 * truth - draw.normal(0, 2 * noise, truth.shape)))
    truth[draw.random(truth.shape) < 0.1] = np.nan
    target = MultilabelTarget(list(names), [100] * len(names), [300] * len(names), 7, [0.4] * len(names))
    rows = [[f"{i:04d}.png", *target.test_row(*row)] for i, row in enumerate(zip(scores, truth, strict=True))]
    return write_run(folder, target, ("f1", ".2%"), rows, {"scalars": {"loss": 0.5, "mAP": 0.9, "f1": 0.8}})


def made_values(folder: Path, names: Sequence[str], images: int, noise: float = 1.0) -> Path:
    """Write the test results of a regression model; every tenth value is unknown."""
    draw = np.random.default_rng(0)
    truth = draw.normal(20, 5, (images, len(names)))
    scores = truth + draw.normal(0, noise, truth.shape)
    truth[draw.random(truth.shape) < 0.1] = np.nan
    target = ValueTarget(list(names), [20.0] * len(names), [5.0] * len(names), 7)
    rows = [[f"{i:04d}.png", *target.test_row(*row)] for i, row in enumerate(zip(scores, truth, strict=True))]
    return write_run(folder, target, ("mae", ".4g"), rows, {"scalars": {"loss": 0.5, "mae": 1.25, "r2": 0.9}})


def write_run(folder: Path, target: Any, headline: Any, rows: list[list[str]], more: dict[str, Any]) -> Path:
    """Write the table of predictions and test.json of a run."""
    folder.mkdir(parents=True)
    with (folder / "test_predictions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", *target.test_columns], *rows])
    facts = {"split": "test", "folder": "images", "net": "ConvNet", "samples": {}, "headline": headline}
    facts["target"] = {"kind": target.kind, **vars(target)}
    facts["split_sizes"] = {"train": 10 * len(rows), "val": len(rows), "test": len(rows)}
    (folder / "test.json").write_text(json.dumps({**facts, **more}))
    return folder
