"""Non-finite losses and gradients."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from project.cli import main
from project.interface import ImageInput
from tests.conftest import fit
from tests.runs import RUN, load

Failing = Callable[[list[str]], str]


class NonFiniteLoss(nn.Module):
    """A network with running means whose logits are NaN for a batch with a white image."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        offset = torch.where(x.mean((1, 2, 3)).max() > 1, torch.nan, 0.0)
        logits: Tensor = self.head(self.norm(x + offset).mean((2, 3)))
        return logits


class NonFiniteGradient(NonFiniteLoss):
    """A network whose gradient is NaN for a batch with a white image, with a finite loss."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x).mean((2, 3)))
        return logits + (0 * self.head.weight.sum()).sqrt() if x.mean((1, 2, 3)).max() > 1 else logits


NONFINITE_LOSS = [
    "--model.net",
    "tests.callbacks.test_nonfinite_guard.NonFiniteLoss",
    "--data.batch_transforms",
    "[]",
    "--test_after_fit",
    "false",
]


def add_white_images(tree: Path) -> None:
    """Add a white image to every class."""
    for color in ("blue", "green", "red"):
        Image.fromarray(np.full((12, 12, 3), 255, np.uint8)).save(tree / color / "white.png")


def is_finite(name: str = "last.ckpt") -> bool:
    return all(value.isfinite().all() for value in load(RUN, name)["state_dict"].values() if value.is_floating_point())


def test_a_nonfinite_loss_stops_the_run(
    tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    add_white_images(tree)
    args = fit(tree, *NONFINITE_LOSS, "--last.every_n_steps", "1")
    message = failing(args)
    assert "training diverged: loss nan, gradient norm nan at step " in message and "--guard.nonfinite skip" in message
    with pytest.raises(SystemExit):
        main(args)
    assert "/white.png\n" in capsys.readouterr().err
    assert is_finite(), "the last good checkpoint is kept"


@pytest.mark.parametrize("images", ["16", "100"])  # 100: one step per epoch, with none after it
def test_a_nonfinite_gradient_is_attributed_to_its_step(
    images: str, tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    add_white_images(tree)
    options = [
        "--model.net",
        "tests.callbacks.test_nonfinite_guard.NonFiniteGradient",
        "--data.batch_size",
        images,
        "--seed_everything",
        "1",
    ]
    args = fit(tree, *NONFINITE_LOSS, *options)
    message = failing(args)
    assert re.search(r"training diverged: loss [\d.]+, gradient norm nan at step ", message)
    with pytest.raises(SystemExit):
        main(args)
    assert "/white.png\n" in capsys.readouterr().err
    assert is_finite()


def test_a_diverged_run_saves_no_nonfinite_checkpoint(tree: Path, here: Path, failing: Failing) -> None:
    huge = ["--model.optimizer", "SGD", "--model.optimizer.lr", "1e38", "--last.every_n_steps", "1"]
    message = failing(fit(tree, *huge))
    assert "training diverged" in message
    assert all(is_finite(file.name) for file in (RUN / "checkpoints").glob("*.ckpt"))


def test_nonfinite_batches_can_be_skipped(tree: Path, here: Path) -> None:
    add_white_images(tree)
    # With one image per batch, the skipped batches are the white images of the train split.
    skip = ["--guard.nonfinite", "skip", "--data.batch_size", "1", "--trainer.limit_val_batches", "0"]
    with pytest.warns(UserWarning, match=r"skipped a batch: loss nan, .*white\.png"):
        main(fit(tree, *NONFINITE_LOSS, *skip))
    with (RUN / "split.csv").open() as stream:
        expected = sum(row["path"].endswith("white.png") and row["split"] == "train" for row in csv.DictReader(stream))
    saved = load(RUN)
    assert expected and saved["callbacks"]["NonFiniteGuard"] == {"skipped": 2 * expected}
    assert is_finite(), "including running means"
    with (RUN / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["train/skipped_batches"]]
    assert [float(row["train/skipped_batches"]) for row in rows] == [expected, 2 * expected]
    assert all(np.isfinite(float(row["train/loss"])) for row in rows)
    steps = [state["step"] for state in saved["optimizer_states"][0]["state"].values()]
    assert all(step == saved["global_step"] - 2 * expected for step in steps), "the optimizer skipped them"


def test_a_skipped_batch_changes_no_weights(tree: Path, here: Path) -> None:
    add_white_images(tree)
    skip = ["--guard.nonfinite", "skip", "--data.batch_size", "100", "--trainer.limit_val_batches", "0"]
    main(fit(tree, *NONFINITE_LOSS, *skip, "--last.every_n_steps", "1"))
    before, after = load(RUN, "previous.ckpt"), load(RUN)
    assert before["global_step"] < after["global_step"]
    for name, value in before["state_dict"].items():
        assert torch.equal(value, after["state_dict"][name])
