"""The command `robustness`: what is left of accuracy when images are not as they were in training."""

from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor

from project.audit.attacks import attack
from project.audit.corruptions import CORRUPTIONS, MOVES, corrupt
from project.audit.model import batches, logits
from project.datamodules import ImageDataModule
from project.errors import UserError
from project.files import write_table
from project.modules import Classifier
from project.report.figures import wilson
from project.run import home_of
from project.trained import bring_up

ROBUSTNESS = "robustness.csv"
SEVERITIES = range(1, 6)
ATTACKS = {"fgsm": 1, "pgd": 10}
"""Steps of each."""
EPSILONS = (0.5, 1, 2, 4, 8)
"""Most change of a channel by an attack, of 255, in the place of severities."""


class Row(NamedTuple):
    """Accuracy under one change.

    Attributes:
        kind: clean, corruption, move or attack.
        name: Of the change.
        severity: 1 to 5; 0 for none.
        accuracy: In [0, 1].
        images: On how many it was measured.
    """

    kind: str
    name: str
    severity: int
    accuracy: float
    images: int


def robustness(trainer: L.Trainer, model: Classifier, data: ImageDataModule, checkpoint: Path, images: int) -> None:
    """Measure, print and write robustness.csv into the run of the checkpoint, or beside one that lies in none.

    Raises:
        UserError: no images wanted; see also `bring_up`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    bring_up(trainer, model, data, checkpoint, labelled=True)
    model.requires_grad_(False)
    parts = list(batches(model, data, data.test_split, images))
    total = sum(len(label) for _, label in parts)
    clean = _accuracy(model, parts)
    low, high = wilson(round(clean * total), total)
    print(f"\n{total:,} images of the {data.test_split} split of {data.folder}; clean accuracy {clean:.2%}")
    print(f"(on other images of this kind {low:.1%} to {high:.1%}, and the figures below about as uncertain)\n")
    print(f"{'accuracy at severity':<22}{''.join(f'{severity:>8}' for severity in SEVERITIES)}{'mean':>8}")
    rows = [Row("clean", "clean", 0, clean, total)]

    def add(kind: str, name: str, found: list[float]) -> None:
        rows.extend(Row(kind, name, severity, each, total) for severity, each in zip(SEVERITIES, found, strict=True))
        print(f"{name:<22}{''.join(f'{each:>8.1%}' for each in found)}{sum(found) / len(found):>8.1%}", flush=True)

    for kind, changes in (("corruption", CORRUPTIONS), ("move", MOVES)):
        for name, change in changes.items():
            add(kind, name, [_accuracy(model, [(corrupt(x, change, s), y) for x, y in parts]) for s in SEVERITIES])
        if kind == "corruption":
            print(f"{'mean of corruptions':<62}{mean_of_corruptions(rows):>8.1%}\n")
    print(f"\n{'changed by, of 255':<22}{''.join(f'{epsilon:>8}' for epsilon in EPSILONS)}")
    for name, steps in ATTACKS.items():
        add("attack", name, _under_attack(model, parts, steps))
    file = home_of(checkpoint) / ROBUSTNESS
    write_table(file, [{**row._asdict(), "folder": str(data.folder)} for row in rows])
    print(f"\nan attack of 0 % leaves no image right; a stronger one may find more than these do\n{file}")


def _accuracy(model: Classifier, parts: list[tuple[Tensor, Tensor]]) -> float:
    return float(torch.cat([_right(model, image, label) for image, label in parts]).double().mean())


def _right(model: Classifier, image: Tensor, label: Tensor) -> Tensor:
    return logits(model, image).argmax(1) == label


def _under_attack(model: Classifier, parts: list[tuple[Tensor, Tensor]], steps: int) -> list[float]:
    """Accuracy by epsilon. What a small change misleads counts as misled by larger ones, which allow it too."""
    left = torch.zeros(len(EPSILONS))
    for image, label in parts:
        right = _right(model, image, label)
        for place, epsilon in enumerate(EPSILONS):
            image, label = image[right], label[right]
            if not len(label):
                break
            right = _right(model, attack(model, image / 255, label, epsilon / 255, steps), label)
            left[place] += right.sum().cpu()
    found: list[float] = (left / sum(len(label) for _, label in parts)).tolist()
    return found


def mean_of_corruptions(rows: list[Row]) -> float:
    """Mean accuracy over all corruptions and severities."""
    found = [row.accuracy for row in rows if row.kind == "corruption"]
    return sum(found) / len(found)
