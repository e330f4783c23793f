"""Tests of the ErrorAnalysis callback."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from project.cli import main
from project.explain.error_analysis import classes_figure
from project.explain.features import write_embeddings
from project.explain.render import image_grid
from project.machine import font_file
from project.modules.tasks.multiclass import confusion_figure
from tests.conftest import COLORS, fit, write_images
from tests.runs import RUN

WATCH = ["--trainer.callbacks", "project.explain.ErrorAnalysis", "--trainer.callbacks.every_n_epochs", "2"]


def image_sizes(tag: str) -> dict[int, tuple[int, int]]:
    """Return width and height of the logged images by step."""
    events = EventAccumulator(str(RUN), size_guidance={"images": 0}).Reload()
    return {event.step: (event.width, event.height) for event in events.Images(tag)}


@pytest.mark.slow
def test_wrong_label_is_among_the_worst_mistakes(tree: Path, here: Path) -> None:
    for name in COLORS:
        write_images(here / "mine" / "train" / name, 20, COLORS[name])
        write_images(here / "mine" / "val" / name, 5, COLORS[name])
    Image.new("RGB", (12, 12), COLORS["red"]).save(here / "mine" / "val" / "blue" / "wrong.png")
    main([*fit(here / "mine", *WATCH, "--test_after_fit", "false"), "--trainer.max_epochs", "10"])
    worst = image_sizes("val/worst_mistakes")
    assert sorted(image_sizes("val/least_certain")) == sorted(image_sizes("val/classes")) == [8, 16, 24, 32, 40]
    assert worst[40][0] > 300 and worst[40][1] > 160, "images of eight pixels are enlarged"
    assert worst[40][1] < 300, "one row: all other predictions are correct"
    tags = EventAccumulator(str(RUN)).Reload().Tags()["histograms"]
    assert {"weights/features.0.weight", "gradients/features.0.weight"} <= set(tags)


def test_nothing_without_a_logger(tree: Path, here: Path) -> None:
    main(fit(tree, *WATCH, "--trainer.logger", "false"))
    assert not list(here.rglob("events*"))


def test_invalid_options(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    assert "at least 1" in failing(fit(tree, *WATCH[:3], "0"))


def test_lowest_recall_and_most_confused_pair_come_first() -> None:
    confusion = np.array([[8, 2, 0], [0, 10, 0], [1, 0, 1]])
    left, right = classes_figure(confusion, ["a", "b", "c"]).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["c", "a", "b"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["c predicted as a", "a predicted as b"]


def test_class_names_with_special_characters_are_drawn(tmp_path: Path) -> None:
    names = ["under $5_$10", os.fsdecode(b"caf\xe9")]
    assert font_file("cat").name == "DejaVuSans.ttf"
    confusion = torch.tensor([[3, 2], [1, 4]])
    for figure in (confusion_figure(confusion, names), classes_figure(confusion.numpy(), names)):
        figure.savefig(tmp_path / "figure.png")
        shown = {label.get_text() for axes in figure.axes for label in axes.get_yticklabels()}
        assert {"under $5_$10", "caf?"} <= shown
    image_grid([[(name, Image.new("RGB", (50, 50))) for name in names]])
    write_embeddings(
        tmp_path, torch.rand(2, 3), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {"label": names, "of": names}
    )
    assert "caf?" in next(tmp_path.rglob("metadata.tsv")).read_text()


@pytest.mark.parametrize("classes", [2, 1000])
def test_any_number_of_classes(classes: int) -> None:
    confusion = np.eye(classes, dtype=np.int64)
    assert classes_figure(confusion, [str(c) for c in range(classes)]).get_figheight() < 11
