"""Losses and gradients that are not finite."""

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


class Fussy(nn.Module):
    """A net with running means whose logits are not finite for a batch that holds a white image."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        spoilt = torch.where(x.mean((1, 2, 3)).max() > 1, torch.nan, 0.0)
        logits: Tensor = self.head(self.norm(x + spoilt).mean((2, 3)))
        return logits


class Steep(Fussy):
    """A net whose gradient is not finite for a batch that holds a white image, whereas the loss is."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x).mean((2, 3)))
        return logits + (0 * self.head.weight.sum()).sqrt() if x.mean((1, 2, 3)).max() > 1 else logits


FUSSY = [
    "--model.net",
    "tests.callbacks.test_nonfinite_guard.Fussy",
    "--data.batch_transforms",
    "[]",
    "--test_after_fit",
    "false",
]


def white(tree: Path) -> list[str]:
    """Every class gets one; their names."""
    for color in ("blue", "green", "red"):
        Image.fromarray(np.full((12, 12, 3), 255, np.uint8)).save(tree / color / "white.png")
    return ["blue/white.png", "green/white.png", "red/white.png"]


def finite(name: str = "last.ckpt") -> bool:
    return all(value.isfinite().all() for value in load(RUN, name)["state_dict"].values() if value.is_floating_point())


def test_a_loss_that_is_not_finite_stops_the_run(
    tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    white(tree)
    args = fit(tree, *FUSSY, "--last.every_n_steps", "1")
    message = failing(args)
    assert "training diverged: loss nan, gradient norm nan at step " in message and "--guard.nonfinite skip" in message
    with pytest.raises(SystemExit):
        main(args)
    assert "/white.png\n" in capsys.readouterr().err
    assert finite(), "the last good checkpoint is kept"


@pytest.mark.parametrize("images", ["16", "100"])  # 100 are the whole split: the one step has none after it
def test_a_gradient_that_is_not_finite_is_laid_to_its_own_step(
    images: str, tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    white(tree)
    steep = [
        "--model.net",
        "tests.callbacks.test_nonfinite_guard.Steep",
        "--data.batch_size",
        images,
        "--seed_everything",
        "1",
    ]
    args = fit(tree, *FUSSY, *steep)
    message = failing(args)
    assert re.search(r"training diverged: loss [\d.]+, gradient norm nan at step ", message)
    with pytest.raises(SystemExit):
        main(args)
    assert "/white.png\n" in capsys.readouterr().err
    assert finite()


def test_a_learning_rate_that_is_far_too_large_leaves_no_spoilt_checkpoint(
    tree: Path, here: Path, failing: Failing
) -> None:
    huge = ["--model.optimizer", "SGD", "--model.optimizer.lr", "1e38", "--last.every_n_steps", "1"]
    message = failing(fit(tree, *huge))
    assert "training diverged" in message
    assert all(finite(file.name) for file in (RUN / "checkpoints").glob("*.ckpt"))


def test_such_batches_can_be_skipped(tree: Path, here: Path) -> None:
    white(tree)
    # One image a batch: what is skipped are the white ones of the train split.
    skip = ["--guard.nonfinite", "skip", "--data.batch_size", "1", "--trainer.limit_val_batches", "0"]
    with pytest.warns(UserWarning, match=r"skipped a batch: loss nan, .*white\.png"):
        main(fit(tree, *FUSSY, *skip))
    with (RUN / "split.csv").open() as stream:
        whites = sum(row["path"].endswith("white.png") and row["split"] == "train" for row in csv.DictReader(stream))
    saved = load(RUN)
    assert whites and saved["callbacks"]["Guard"] == {"skipped": 2 * whites}
    assert finite(), "running means too"
    with (RUN / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["train/skipped_batches"]]
    assert [float(row["train/skipped_batches"]) for row in rows] == [whites, 2 * whites]
    assert all(np.isfinite(float(row["train/loss"])) for row in rows)
    steps = [state["step"] for state in saved["optimizer_states"][0]["state"].values()]
    assert all(step == saved["global_step"] - 2 * whites for step in steps), "the optimizer passed over them"


def test_one_step_with_a_skipped_batch_changes_nothing(tree: Path, here: Path) -> None:
    white(tree)
    whole = ["--guard.nonfinite", "skip", "--data.batch_size", "100", "--trainer.limit_val_batches", "0"]
    main(fit(tree, *FUSSY, *whole, "--last.every_n_steps", "1"))
    before, after = load(RUN, "previous.ckpt"), load(RUN)
    assert before["global_step"] < after["global_step"]
    for name, value in before["state_dict"].items():
        assert torch.equal(value, after["state_dict"][name])
