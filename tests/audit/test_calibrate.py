"""Calibration finds a temperature that was planted, and everything then uses it."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from project.audit.calibrate import confidence_threshold, fit_temperature
from project.cli import main
from project.errors import UserError
from project.runs.read import read_run
from tests.conftest import COLORS, QUICK, REPOSITORY, fit, write_images
from tests.runs import load

RUN = Path("logs/run/version_0")


def labeled(count: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels that are drawn from what they say at a temperature."""
    draws = torch.Generator().manual_seed(0)
    scores = 4 * torch.randn(count, 5, generator=draws, dtype=torch.float64)
    return scores, torch.multinomial((scores / temperature).softmax(1), 1, generator=draws)[:, 0]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature: float) -> None:
    assert fit_temperature(*labeled(20_000, temperature)) == pytest.approx(temperature, rel=0.05)


def test_where_no_temperature_is_best_it_says_so() -> None:
    scores = torch.eye(3, dtype=torch.float64)
    with pytest.raises(UserError, match="all of the 3 val images are right"):
        fit_temperature(scores, torch.tensor([0, 1, 2]))
    with pytest.raises(UserError, match="no better than chance"):
        fit_temperature(scores, torch.tensor([1, 2, 1]))


def test_the_least_probability_that_reaches_a_target() -> None:
    sureness = torch.tensor([0.9, 0.8, 0.8, 0.7, 0.6])
    right = torch.tensor([True, True, False, True, False])
    assert confidence_threshold(sureness, right, 0.75) == pytest.approx(0.65)  # halfway from 0.7 to the next image
    assert confidence_threshold(sureness, right, 0.9) == pytest.approx(
        0.85
    )  # not 0.8, which one right and one wrong image reach
    lowest = confidence_threshold(sureness.double(), right, 0.5)  # all images reach it
    assert lowest < 0.6 and lowest == pytest.approx(0.6, abs=1e-5)
    with pytest.raises(UserError, match="aim lower"):
        confidence_threshold(sureness, ~right, 0.9)


def sure_of_itself(here: Path, factor: float) -> None:
    """A run on images of which some lie in another class's folder, its logits then multiplied."""
    colors = list(COLORS.items())
    for number, (name, _) in enumerate(colors):
        for other, (wrong, color) in enumerate(colors):
            write_images(here / "part", 40 if number == other else 8, color)
            for file in (here / "part").iterdir():
                (here / "images" / name).mkdir(parents=True, exist_ok=True)
                file.rename(here / "images" / name / f"{wrong}{file.name}")
    main(fit(here / "images", "--trainer.max_epochs", "6", "--data.val_fraction", "0.3", "--test_after_fit", "false"))
    saved = load(RUN, "best.ckpt")
    *_, weight, bias = (name for name in saved["state_dict"] if name.startswith("net."))
    for name in (weight, bias):
        saved["state_dict"][name] *= factor
    torch.save(saved, RUN / "checkpoints/best.ckpt")


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    capsys.readouterr()
    main(["test", "--ckpt_path", str(RUN / "checkpoints/best.ckpt"), *QUICK])
    shown = capsys.readouterr().out
    return {
        name: float(re.search(rf"{name} ([\d.]+)", shown)[1])  # type: ignore[index]
        for name in ("accuracy", "calibration error", "Brier score")
    }


@pytest.mark.slow
def test_a_calibrated_checkpoint_is_calibrated_wherever_it_is_used(
    here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    sure_of_itself(here, 20)
    before = figures(capsys)
    calibrate = ["calibrate", "--ckpt_path", "best", *QUICK]
    main([*calibrate, "--target_accuracy", "0.6"])
    shown = capsys.readouterr().out
    assert re.search(r"temperature \d+\.\d+, before 1\.0000: written into", shown) and "test after" in shown
    saved = load(RUN, "best.ckpt")
    assert float(saved["state_dict"]["task.temperature"]) > 5
    assert sorted(item.name for item in Path("logs").iterdir()) == ["run", "test"]

    after = figures(capsys)
    assert after["accuracy"] == before["accuracy"]
    assert after["Brier score"] < before["Brier score"] - 0.02
    assert after["calibration error"] < before["calibration error"] - 0.05
    table = read_run(Path("logs/test/version_1")).predictions
    assert table and after["calibration error"] == pytest.approx(table.calibration_error, abs=1e-4)

    main(["predict", "--ckpt_path", str(RUN / "checkpoints/best.ckpt"), "--data.root", "images", *QUICK])
    with Path("logs/predict/version_0/predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    least = saved["hyper_parameters"]["confidence_threshold"]
    assert list(rows[0])[:3] == ["path", "class", "confident"]
    assert all((row["confident"] == "yes") == (float(row[row["class"]]) >= least) for row in rows)

    assert "must be above 0 and below 1" in failing([*calibrate, "--target_accuracy", "99"])
    main(["fit", "--ckpt_path", str(RUN / "checkpoints/best.ckpt"), "--trainer.max_epochs", "7", *QUICK])
    further = load(RUN)
    assert (
        float(further["state_dict"]["task.temperature"]) == 1
        and further["hyper_parameters"]["confidence_threshold"] is None
    )


@pytest.mark.slow
def test_calibration_holds_in_the_arithmetic_of_an_older_processor() -> None:
    """Which image is sure must not hang on the last bit: with AVX2, sums come in another order."""
    older = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    test = f"{__file__}::test_a_calibrated_checkpoint_is_calibrated_wherever_it_is_used"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", test]
    done = subprocess.run(command, cwd=REPOSITORY, env=older, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
