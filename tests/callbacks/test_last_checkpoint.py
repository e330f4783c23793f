"""Resuming from last.ckpt of any step, for several kinds of runs; a copy of the run folder simulates a kill."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from project.cli import main
from tests.conftest import fit
from tests.runs import RUN, load, same_runs

pytestmark = pytest.mark.slow

PLATEAU = ["--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val/loss"]
PLATEAU += ["--model.scheduler.patience", "0", "--model.scheduler.threshold", "0.5"]
BEST = ["--checkpoint.save_top_k", "2"]


class CopyRun(L.Callback):
    """Callback that copies the run folder at the start of a step: the state that a kill would leave."""

    def __init__(self, step: int, to: str) -> None:
        self.step, self.to = step, to

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not Path(self.to).exists():
            shutil.copytree(str(trainer.log_dir), self.to)


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (0, PLATEAU),
        (1, PLATEAU),
        (3, PLATEAU),
        (4, PLATEAU),
        (2, ["--trainer.accumulate_grad_batches", "2"]),
        (1, ["--trainer.accumulate_grad_batches", "2"]),
        (5, ["--trainer.val_check_interval", "0.5"]),
        (3, ["--trainer.limit_train_batches", "2"]),
        (4, ["--trainer.limit_train_batches", "2", *BEST]),
        (6, ["--trainer.check_val_every_n_epoch", "2"]),
        (3, ["--trainer.max_epochs", "-1", "--trainer.max_steps", "8"]),
        (4, ["--trainer.max_epochs", "-1", "--trainer.max_steps", "8"]),
        (7, ["--trainer.max_epochs", "-1", "--trainer.max_steps", "8", *PLATEAU]),
    ],
)
def test_resumes_from_any_step(step: int, options: list[str], tree: Path, here: Path) -> None:
    copy = here / "elsewhere" / "run" / "version_0"
    watch = ["--trainer.callbacks", "tests.callbacks.test_last_checkpoint.CopyRun"]
    watch += ["--trainer.callbacks.step", str(step), "--trainer.callbacks.to", str(copy)]
    short = ["--trainer.max_epochs", "3", "--data.batch_size", "12", "--trainer.log_every_n_steps", "1"]
    # `test` would write a second event file, and those of one process and second are read in the order of their names.
    short += ["--test_after_fit", "false"]
    main(fit(tree, *short, *options, *watch, "--last.every_n_steps", "1"))
    assert load(copy)["global_step"] == step
    time.sleep(1)  # the first run began in an earlier second than the resumed one
    main(["fit", "--ckpt_path", str(copy / "checkpoints" / "last.ckpt")])
    if BEST[0] in options:
        names = [sorted(file.name for file in (run / "checkpoints").iterdir()) for run in (RUN, copy)]
        assert names[0] == names[1] and len(names[0]) == 4
        for run in (RUN, copy):
            shutil.copy(next((run / "checkpoints").glob("best-*")), run / "checkpoints" / "best.ckpt")
    same_runs(RUN, copy)


def test_a_larger_patience_applies_when_resuming(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    stop += ["--trainer.callbacks.min_delta", "100", "--trainer.callbacks.patience"]
    stop = ["--model.optimizer.lr", "0", *stop]  # no epoch is better than the first
    main(fit(tree, *stop, "1", "--trainer.max_epochs", "9", "--test_after_fit", "false"))
    config = RUN / "config.yaml"
    config.write_text(config.read_text().replace("patience: 1", "patience: 3"))
    capsys.readouterr()
    main(["fit", "--ckpt_path", "last"])
    shown = capsys.readouterr().out
    assert " 4/9" in shown and " 5/9" not in shown and "did not improve for 3 epochs" in shown
    assert "3/9" in shown and "best" not in shown.split("3/9")[1].splitlines()[0], "the best epoch is an earlier one"


def test_several_best_checkpoints_are_found(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--checkpoint.save_top_k", "2", "--trainer.max_epochs", "3"))
    assert len(list((RUN / "checkpoints").glob("best-*.ckpt"))) == 2
    accuracy = capsys.readouterr().out.split("accuracy ")[1].splitlines()[0]
    main(["test", "--ckpt_path", "best", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"])
    assert capsys.readouterr().out.split("accuracy ")[1].splitlines()[0] == accuracy


def test_invalid_intervals(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    assert "last.every_minutes must be above 0" in failing(fit(tree, "--last.every_minutes", "0"))


def test_metric_counts_resume_on_another_number_of_processes() -> None:
    from project.modules.tasks.multiclass import ClassCounts

    expected = ClassCounts(3)
    logits, labels = torch.randn(12, 3), torch.randint(3, (12,))
    sums = []
    for rank in range(4):
        part = ClassCounts(3)
        part.update(torch.tensor(float(rank)), logits[rank::4], labels[rank::4])
        expected.update(torch.tensor(float(rank)), logits[rank::4], labels[rank::4])
        sums.append(part.sums())
    stacked = {name: torch.stack([each[name] for each in sums]) for name in sums[0]}
    total = torch.zeros(3, 3, dtype=torch.int64)
    for rank in range(2):
        share = ClassCounts(3)
        share.resume({name: values[rank::2].sum(0) for name, values in stacked.items()})
        total += share.counts
    assert torch.equal(total, expected.counts)
