"""Tests of `train.py find_lr` and `train.py find_batch_size`."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from project.cli import main
from project.search.find_lr import suggest
from tests.conftest import QUICK

ADAM = ["--model.optimizer", "torch.optim.Adam", "--data.batch_transforms", "[]"]


def suggested_option(output: str) -> list[str]:
    """Return the option and value of the last `add` line."""
    return (re.findall(r"^add +(--\S+ \S+)", output, re.MULTILINE)[-1]).split()


def test_suggestion_is_before_the_plateau() -> None:
    rates = np.geomspace(1e-6, 1, 61).tolist()
    losses = [2 - min(1, max(0, np.log10(rate) + 4)) for rate in rates]  # decreases from 1e-4 to 1e-3, then plateaus
    assert suggest(rates, losses) == pytest.approx(1e-3 / 3, rel=0.3)
    assert suggest(rates, [*losses[:40], 9.0, float("nan")]) == suggest(rates, losses), "divergence after the plateau"
    assert suggest(rates, [2.0 + rate for rate in rates]) is None


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["null", "project.modules.WarmupDecay", "torch.optim.lr_scheduler.OneCycleLR"])
def test_suggested_learning_rate_is_a_valid_option(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str], schedule: str
) -> None:
    own = ["--data.root", str(tree), "--data.batch_size", "16", *QUICK, *ADAM, "--model.scheduler", schedule]
    own += ["--model.scheduler.max_lr", "0.1"] if "OneCycle" in schedule else []
    main(["find_lr", *own])
    option, value = suggested_option(capsys.readouterr().out)
    assert option == ("--model.scheduler.max_lr" if "OneCycle" in schedule else "--model.optimizer.lr")
    assert 1e-5 < float(value) < 0.1
    written = [str(file.relative_to(here)) for file in (here / "logs").rglob("*") if file.is_file()]
    assert written == ["logs/find_lr/version_0/learning_rate.png"], "no other file is written"
    main(["fit", *own, option, value, "--trainer.max_epochs", "1", "--test_after_fit", "false"])
    text = (here / "logs/run/version_0/config.yaml").read_text()
    match = re.search(rf"\b{option.rpartition('.')[2]}: (\S+)", text)
    assert match is not None and float(match[1]) == float(value)


@pytest.mark.slow
def test_suggested_batch_size_is_a_valid_option(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data.root", str(tree), *QUICK, *ADAM]
    main(["find_batch_size", *own, "--min_batch_size", "2"])
    output = capsys.readouterr().out
    sizes = [int(line.split()[0]) for line in output.splitlines() if re.match(r" +\d[\d,]* +\d", line)]
    assert sizes == [2, 4, 8][: len(sizes)] and len(sizes) >= 2, "42 images are too few for batch size 16"
    option, value = suggested_option(output)
    assert option == "--data.batch_size" and int(value) in sizes
    assert not [file for file in (here / "logs").rglob("*") if file.is_file()]


@pytest.mark.slow
def test_errors(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    own = ["--data.root", str(tree), "--data.batch_size", "16", *QUICK, *ADAM]
    assert "0 < min_lr < max_lr" in failing(["find_lr", *own, "--min_lr", "1", "--max_lr", "0.1"])
    assert "--model.init_from" in failing(["find_lr", *own, "--ckpt_path", "best"])
    assert "the loss never decreased" in failing(["find_lr", *own, "--min_lr", "1e-12", "--max_lr", "1e-11"])
    assert "--min_batch_size" in failing(["find_batch_size", *own, "--min_batch_size", "32"])
