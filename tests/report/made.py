"""Test results of synthetic runs, written without training."""

import csv
import json
from pathlib import Path

import numpy as np


def made_run(folder: Path, classes: int, images: int, accuracy: float = 0.8, images_in: str = "images") -> Path:
    """Write test_predictions.csv and test.json of a classifier with the given accuracy."""
    draw = np.random.default_rng(0)
    names = [f"class {number:03d}" for number in range(classes)]
    label = np.arange(images) % classes
    correct = draw.random(images) < accuracy
    predicted = np.where(correct, label, (label + draw.choice([1, 2, classes // 2], images)) % classes)
    confidence = np.clip(draw.normal(np.where(correct, 0.85, 0.6), 0.12), 1 / classes, 1)
    folder.mkdir(parents=True)
    with (folder / "test_predictions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "predicted", "probability", "class_probability"])
        for number, (c, p, q, hit) in enumerate(zip(label, predicted, confidence, correct, strict=True)):
            row = [f"{names[c]}/{number:06d}.jpg", names[c], names[p], f"{q:.6f}", f"{q if hit else (1 - q) / 2:.6f}"]
            writer.writerow(row)
    summary = {
        "split": "test",
        "folder": images_in,
        "target": {"kind": "classes", "class_names": names, "train_counts": [100] * classes},
        "headline": ["acc", ".2%"],
        "split_sizes": {"train": 100 * classes, "val": 10 * classes, "test": images},
        "input": "224x224",
        "net": "ConvNet",
        "parameters": 25_557_032,
        "loss": 0.7,
        "samples": {},
    }
    (folder / "test.json").write_text(json.dumps(summary))
    return folder
