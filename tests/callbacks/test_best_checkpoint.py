"""Tests of the best checkpoint: of equal monitored values, the one with the lower val loss."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from project.cli import main
from project.modules import Classifier
from project.runs.read import read_run
from tests.conftest import fit
from tests.runs import RUN, load

NAN = float("nan")
WITHOUT_TEST = ["--test_after_fit", "false"]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Val accuracy and loss of each epoch, to be filled in by the test."""
    epochs: list[tuple[float, float]] = []
    log = Classifier.log_dict

    def log_scripted(self: Classifier, values: dict[str, Any]) -> None:
        if "val/acc" in values and not self.trainer.sanity_checking:
            accuracy, loss = epochs[self.current_epoch]
            values = values | {"val/acc": torch.tensor(accuracy), "val/loss": torch.tensor(loss)}
        log(self, values)

    monkeypatch.setattr(Classifier, "log_dict", log_scripted)
    return epochs


def kept() -> tuple[int, set[int]]:
    """Return the epoch of the best checkpoint, counted from 1, and those of all that are kept."""
    epochs = {file.name: load(RUN, file.name)["epoch"] + 1 for file in (RUN / "checkpoints").glob("best*.ckpt")}
    states = load(RUN)["callbacks"]
    best = next(state["best_model_path"] for key, state in states.items() if key.startswith("BestCheckpoint"))
    return epochs[Path(best).name], set(epochs.values())


@pytest.mark.parametrize(
    ("epochs", "save_top_k", "best", "all_kept"),
    [
        ([(0.5, 0.1), (1, 0.9), (1, 0.4), (1, 0.6)], 1, 3, {3}),
        ([(1, 0.5), (1, NAN), (NAN, 0.1)], 1, 1, {1}),
        ([(1, NAN), (1, 0.5), (1, 0.5)], 1, 2, {2}),
        ([(1, 0.3), (1, 0.9), (1, 0.1), (0.5, 0)], 2, 3, {1, 3}),
        ([(1, 0.3), (1, 0.9), (1, 0.1), (0.5, 0)], -1, 3, {1, 2, 3, 4}),
    ],
)
def test_of_equal_accuracies_the_lower_loss(
    tree: Path,
    here: Path,
    scripted: list[tuple[float, float]],
    epochs: list[tuple[float, float]],
    save_top_k: int,
    best: int,
    all_kept: set[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted += epochs
    length = ["--trainer.max_epochs", str(len(epochs)), "--checkpoint.save_top_k", str(save_top_k)]
    main([*fit(tree, *WITHOUT_TEST), *length])
    assert kept() == (best, all_kept)
    assert f"best epoch {best} by val/acc" in capsys.readouterr().out


@pytest.mark.parametrize("older", [False, True])
def test_resumed_run_compares_with_the_loss_of_the_best(
    tree: Path, here: Path, scripted: list[tuple[float, float]], older: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted += [(1, 0.4), (1, 0.6), (1, 0.5), (1, 0.7)]
    main(fit(tree, *WITHOUT_TEST))
    last = RUN / "checkpoints" / "last.ckpt"
    if older:  # it did not record the losses
        saved = load(RUN)
        for state in saved["callbacks"].values():
            state.pop("losses", None)
        torch.save(saved, last)
    capsys.readouterr()
    main(["fit", "--ckpt_path", str(last), "--trainer.max_epochs", "4", *WITHOUT_TEST])
    assert kept()[0] == (3 if older else 1)
    assert ("best epoch 3" in capsys.readouterr().out) is older


def test_another_monitor_is_a_column_of_the_table(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*fit(tree, *WITHOUT_TEST), "--checkpoint.monitor", "val/precision"])
    shown = capsys.readouterr().out
    assert re.search(r"val loss +acc +val/precision +images/s\n.* \d+\.\d\d% +\d\.\d{4} +[\d,]+ best\n", shown)


def test_report_names_the_same_epoch(tree: Path, here: Path, scripted: list[tuple[float, float]]) -> None:
    scripted += [(1, 0.9), (1, 0.4), (1, 0.6)]
    main([*fit(tree), "--trainer.max_epochs", "3"])
    best = read_run(RUN).best
    assert best is not None and best["epoch"] + 1 == 2
