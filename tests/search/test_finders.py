"""find_lr and find_batch_size, from the command line."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from project.cli import main
from project.search.find_lr import suggest
from tests.conftest import QUICK

ADAM = ["--model.optimizer", "torch.optim.Adam", "--data.batch_transforms", "[]"]


def added(shown: str) -> list[str]:
    """The option that the last line but what follows it says to type."""
    return (re.findall(r"^add +(--\S+ \S+)", shown, re.MULTILINE)[-1]).split()


def test_the_suggestion_lies_before_the_flat_ground() -> None:
    rates = np.geomspace(1e-6, 1, 61).tolist()
    losses = [2 - min(1, max(0, np.log10(rate) + 4)) for rate in rates]  # falls from 1e-4 to 1e-3, then lies flat
    assert suggest(rates, losses) == pytest.approx(1e-3 / 3, rel=0.3)
    assert suggest(rates, [*losses[:40], 9.0, float("nan")]) == suggest(rates, losses), "diverged behind it"
    assert suggest(rates, [2.0 + rate for rate in rates]) is None


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["null", "project.modules.WarmupDecay", "torch.optim.lr_scheduler.OneCycleLR"])
def test_a_learning_rate_is_suggested_that_can_be_typed(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str], schedule: str
) -> None:
    own = ["--data.root", str(tree), "--data.batch_size", "16", *QUICK, *ADAM, "--model.scheduler", schedule]
    own += ["--model.scheduler.max_lr", "0.1"] if "OneCycle" in schedule else []
    main(["find_lr", *own])
    option, value = added(capsys.readouterr().out)
    assert option == ("--model.scheduler.max_lr" if "OneCycle" in schedule else "--model.optimizer.lr")
    assert 1e-5 < float(value) < 0.1
    written = [str(file.relative_to(here)) for file in (here / "logs").rglob("*") if file.is_file()]
    assert written == ["logs/find_lr/version_0/learning_rate.png"], "nothing else is left behind"
    main(["fit", *own, option, value, "--trainer.max_epochs", "1", "--test_after_fit", "false"])
    text = (here / "logs/run/version_0/config.yaml").read_text()
    found = re.search(rf"\b{option.rpartition('.')[2]}: (\S+)", text)
    assert found is not None and float(found[1]) == float(value)


@pytest.mark.slow
def test_a_batch_size_is_suggested_that_can_be_typed(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--data.root", str(tree), *QUICK, *ADAM]
    main(["find_batch_size", *own, "--smallest", "2"])
    shown = capsys.readouterr().out
    sizes = [int(line.split()[0]) for line in shown.splitlines() if re.match(r" +\d[\d,]* +\d", line)]
    assert sizes == [2, 4, 8][: len(sizes)] and len(sizes) >= 2, "42 images: 16 would leave no step to time"
    option, value = added(shown)
    assert option == "--data.batch_size" and int(value) in sizes
    assert not [file for file in (here / "logs").rglob("*") if file.is_file()]


@pytest.mark.slow
def test_what_they_cannot_do_is_told(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    own = ["--data.root", str(tree), "--data.batch_size", "16", *QUICK, *ADAM]
    assert "0 < lowest < highest" in failing(["find_lr", *own, "--lowest", "1", "--highest", "0.1"])
    assert "--model.init_from" in failing(["find_lr", *own, "--ckpt_path", "best"])
    assert "the loss never fell" in failing(["find_lr", *own, "--lowest", "1e-12", "--highest", "1e-11"])
    assert "--smallest" in failing(["find_batch_size", *own, "--smallest", "32"])
