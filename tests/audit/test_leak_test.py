"""Tests of `leak_test`: the attack succeeds on an overfitted network and fails on a random one."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from project.audit.leak_test import attack_metrics
from project.cli import main
from tests.conftest import QUICK, fit
from tests.runs import load

RUN = Path("logs/run/version_0")


def test_auc_matches_scikit_learn_and_its_interval_has_the_right_coverage() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        members, unseen = draw.normal(0.5, 1, 80).round(1), draw.normal(0, 1, 120).round(1)
        found = attack_metrics(members, unseen)
        expected = roc_auc_score([1] * 80 + [0] * 120, [*members, *unseen])
        assert found["auc"] == pytest.approx(expected)
        covered += found["auc_interval"][0] <= 0.6382 <= found["auc_interval"][1]  # Phi(0.5 / sqrt(2))
    assert 180 <= covered <= 198


def test_true_positive_rate_at_a_false_positive_rate_of_one_in_a_thousand() -> None:
    unseen, members = np.arange(2000.0), np.array([1997.5, 1996.5, 3000.0, 5.0])
    found = attack_metrics(members, unseen)
    assert found["false_alarms"] == 2 and found["found"] == 0.5  # 3000 and 1997.5 are above all but two


def write_noise(root: Path) -> None:
    """Write noise images with random labels, which can only be memorized."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 60)):
        for number in range(count):
            folder = root / split / f"class{draw.integers(3)}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")


@pytest.mark.slow
def test_the_attack_succeeds_on_an_overfitted_network_only(
    here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    write_noise(here / "images")
    plain = ["--data.batch_transforms", "[]", "--test_after_fit", "false", "--data.sampling", "balanced"]
    main(fit(here / "images", *plain, "--trainer.max_epochs", "40"))
    last = str(RUN / "checkpoints/last.ckpt")
    main(["leak_test", "--ckpt_path", last, *QUICK])
    shown = capsys.readouterr().out
    found = json.loads((RUN / "leak_test.json").read_text())
    assert (
        found["auc"] > 0.9 and found["auc_interval"][0] > 0.8 and "separates training images from unseen ones" in shown
    )
    train = int(shown.split("train ")[1].split()[0])
    assert found["trained_on"] == train and found["train_accuracy"] > 0.95 > found["accuracy"] + 0.3

    saved = load(RUN)
    for name, value in saved["state_dict"].items():
        if name.startswith("net."):
            saved["state_dict"][name] = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) * 0.05
    torch.save(saved, last)
    main(["leak_test", "--ckpt_path", last, *QUICK])
    found = json.loads((RUN / "leak_test.json").read_text())
    assert found["auc_interval"][0] < 0.5 < found["auc_interval"][1]
    assert "a stronger attack may" in capsys.readouterr().out

    for file in (here / "images/train/class0").iterdir():
        file.unlink()
        break
    assert "not those that the model was trained on" in failing(["leak_test", "--ckpt_path", last, *QUICK])
