"""Tests of `calibrate`."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score

from project.audit.class_thresholds import confidence_threshold, set_threshold
from project.audit.label_thresholds import label_threshold
from project.cli import main
from project.errors import UserError
from project.modules.tasks.temperature import fit_temperature
from project.runs.read import read_run
from tests.conftest import COLORS, QUICK, REPOSITORY, fit, write_images
from tests.runs import load

RUN = Path("logs/run/version_0")


def labeled(count: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits, and labels sampled from their softmax at a temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_fit_temperature_recovers_the_sampling_temperature(temperature: float) -> None:
    assert fit_temperature(*labeled(20_000, temperature)) == pytest.approx(temperature, rel=0.05)


def test_fit_temperature_raises_without_an_optimum() -> None:
    logits = torch.eye(3, dtype=torch.float64)
    with pytest.raises(UserError, match="predicts all 3 val images correctly"):
        fit_temperature(logits, torch.tensor([0, 1, 2]))
    with pytest.raises(UserError, match="no better than chance"):
        fit_temperature(logits, torch.tensor([1, 2, 1]))


def test_confidence_threshold() -> None:
    confidence = torch.tensor([0.9, 0.8, 0.8, 0.7, 0.6])
    correct = torch.tensor([True, True, False, True, False])
    assert confidence_threshold(confidence, correct, 0.75) == pytest.approx(0.65)  # halfway from 0.7 to 0.6
    # Not 0.8, which is the confidence of one correct and one incorrect prediction.
    assert confidence_threshold(confidence, correct, 0.9) == pytest.approx(0.85)
    lowest = confidence_threshold(confidence.double(), correct, 0.5)  # reached by all images
    assert lowest < 0.6 and lowest == pytest.approx(0.6, abs=1e-5)
    with pytest.raises(UserError, match="no confidence threshold reaches an accuracy of 90.00%"):
        confidence_threshold(confidence, ~correct, 0.9)


def test_prediction_sets_have_the_stated_coverage() -> None:
    logits, label = labeled(40_000, 2.0)  # uncalibrated: coverage does not depend on the model
    of_label = logits.softmax(1).gather(1, label[:, None])[:, 0]
    calibration, new = of_label[:20_000].reshape(400, 50), of_label[20_000:]
    covered = [float((new >= set_threshold(each, 0.9)).double().mean()) for each in calibration]
    assert sum(covered) / 400 == pytest.approx(46 / 51, abs=0.01)  # exact for ranks of 50 images
    assert set_threshold(torch.linspace(0.1, 0.9, 9), 0.9) == pytest.approx(0.1, abs=1e-5)
    with pytest.raises(UserError, match="needs at least 9 images in the half of val .* has 8"):
        set_threshold(torch.ones(8), 0.9)


def test_label_thresholds_agree_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    truth = draw.random(80) < 0.3
    score = np.clip(draw.normal(np.where(truth, 0.6, 0.4), 0.15), 0, 1).round(2)  # with ties
    options = np.unique(score)
    metrics = {
        name: np.array([metric(truth, score >= limit, zero_division=0) for limit in options])
        for name, metric in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score))
    }

    def achieved(**wanted: float) -> dict[str, float]:
        threshold, reached = label_threshold(score, truth, **wanted)
        assert reached
        at = int(np.flatnonzero(options >= threshold)[0])
        return {name: values[at] for name, values in metrics.items()}

    assert achieved()["f1"] == metrics["f1"].max()
    precise, complete = achieved(precision=0.5), achieved(recall=0.5)
    assert precise["precision"] >= 0.5
    assert precise["recall"] == metrics["recall"][metrics["precision"] >= 0.5].max()
    assert complete["recall"] >= 0.5
    assert complete["precision"] == metrics["precision"][metrics["recall"] >= 0.5].max()
    never = label_threshold(np.array([0.9, 0.5]), np.array([False, True]), precision=0.9)
    assert not never.reached and never.threshold < 0.5


def train_overconfident(here: Path, factor: float) -> None:
    """Train on images with some wrong labels, then multiply the logits by a factor."""
    colors = list(COLORS.items())
    for number, (name, _) in enumerate(colors):
        for other, (wrong_name, color) in enumerate(colors):
            write_images(here / "part", 40 if number == other else 8, color)
            for file in (here / "part").iterdir():
                (here / "images" / name).mkdir(parents=True, exist_ok=True)
                file.rename(here / "images" / name / f"{wrong_name}{file.name}")
    main(fit(here / "images", "--trainer.max_epochs", "6", "--data.val_fraction", "0.3", "--test_after_fit", "false"))
    saved = load(RUN, "best.ckpt")
    *_, weight, bias = (name for name in saved["state_dict"] if name.startswith("net."))
    for name in (weight, bias):
        saved["state_dict"][name] *= factor
    torch.save(saved, RUN / "checkpoints/best.ckpt")


def evaluate(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    capsys.readouterr()
    main(["test", "--ckpt_path", str(RUN / "checkpoints/best.ckpt"), *QUICK])
    shown = capsys.readouterr().out
    return {
        name: float(re.search(rf"{name} ([\d.]+)", shown)[1])  # type: ignore[index]
        for name in ("accuracy", "calibration error", "Brier score")
    }


@pytest.mark.slow
def test_every_command_uses_the_temperature_of_the_checkpoint(
    here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    train_overconfident(here, 20)
    before = evaluate(capsys)
    calibrate = ["calibrate", "--ckpt_path", "best", *QUICK]
    main([*calibrate, "--target_accuracy", "0.6", "--coverage", "0.8"])
    shown = capsys.readouterr().out
    temperature, thresholds = re.search(
        r"temperature from (\d+) val images, thresholds from (\d+) others", shown
    ).groups()  # type: ignore[union-attr]
    assert abs(int(temperature) - int(thresholds)) <= 1 and re.search(
        r"test: .*contain the true class.*average size", shown
    )
    assert re.search(r"temperature \d+\.\d+ \(before: 1\.0000\), saved in", shown) and "test after" in shown
    saved = load(RUN, "best.ckpt")
    assert float(saved["state_dict"]["task.temperature"]) > 5
    assert sorted(item.name for item in Path("logs").iterdir()) == ["run", "test"]

    after = evaluate(capsys)
    assert after["accuracy"] == before["accuracy"]
    assert after["Brier score"] < before["Brier score"] - 0.02
    assert after["calibration error"] < before["calibration error"] - 0.05
    table = read_run(Path("logs/test/version_1")).predictions
    assert table and after["calibration error"] == pytest.approx(table.calibration_error, abs=1e-4)

    main(["predict", "--ckpt_path", str(RUN / "checkpoints/best.ckpt"), "--data.root", "images", *QUICK])
    with Path("logs/predict/version_0/predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    threshold = saved["data_description"]["target"]["init_args"]["confidence_threshold"]
    low = saved["data_description"]["target"]["init_args"]["set_threshold"]
    assert list(rows[0])[:4] == ["path", "class", "confident", "set"]
    for row in rows:
        assert set(row["set"].split("|")) == {name for name in COLORS if float(row[name]) >= low} | {row["class"]}
    assert all((row["confident"] == "yes") == (float(row[row["class"]]) >= threshold) for row in rows)

    assert "must be above 0 and below 1" in failing([*calibrate, "--target_accuracy", "99"])
    main(["fit", "--ckpt_path", str(RUN / "checkpoints/best.ckpt"), "--trainer.max_epochs", "7", *QUICK])
    resumed = load(RUN)
    assert (
        float(resumed["state_dict"]["task.temperature"]) == 1
        and resumed["data_description"]["target"]["init_args"]["confidence_threshold"] is None
        and resumed["data_description"]["target"]["init_args"]["set_threshold"] is None
    )


@pytest.mark.slow
def test_calibration_with_avx2_arithmetic() -> None:
    """Which images are confident must not depend on rounding: with AVX2, sums have another order."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    test = f"{__file__}::test_every_command_uses_the_temperature_of_the_checkpoint"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", test]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
