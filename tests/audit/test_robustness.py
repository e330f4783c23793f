"""Tests of `robustness` on networks with a known weakness."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from project.audit.corruptions import CORRUPTIONS, GEOMETRIC, corrupt, supports
from project.cli import main
from tests.conftest import COLORS, QUICK, fit, write_images

RUN = Path("logs/run/version_0")


@pytest.mark.parametrize("name", [*CORRUPTIONS, *GEOMETRIC])
@pytest.mark.parametrize("size", [32, 96])
def test_corruptions_grow_with_severity_and_are_deterministic(name: str, size: int) -> None:
    corruption = (CORRUPTIONS | GEOMETRIC)[name]
    noise = torch.rand(8, 3, size // 2, size // 2, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, size, mode="bilinear")
    image = (60 + 120 * smooth).to(torch.uint8)
    changed = [corrupt(image, corruption, severity) for severity in range(1, 6)]
    assert all(each.dtype == torch.uint8 and each.shape == image.shape for each in changed)
    assert torch.equal(changed[2], corrupt(image, corruption, 3))
    distance = [float((each.float() - image).abs().mean()) for each in changed]
    assert 0 <= distance[0] < distance[4] < 128 and distance[4] > 2


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_corruptions_of_any_channels_shape_and_depth(channels: int) -> None:
    noise = torch.rand(4, channels, 12, 20, generator=torch.Generator().manual_seed(0))
    image = (60 + 120 * torch.nn.functional.interpolate(noise, (24, 40), mode="bilinear")).to(torch.uint8)
    for name, corruption in (CORRUPTIONS | GEOMETRIC).items():
        assert supports(name, channels) == (name != "jpeg" or channels < 4)
        if supports(name, channels):
            pixels, scaled = corrupt(image, corruption, 5), corrupt(image / 255, corruption, 5)
            assert pixels.dtype == torch.uint8 and scaled.dtype == torch.float32 and pixels.shape == image.shape
            assert (scaled - pixels / 255).abs().max() < 1 / 255 and scaled.min() >= 0 and scaled.max() <= 1
            assert (pixels.float() - image)[:, -1].abs().mean() > 1, f"{name} changes the last channel"


def table() -> dict[tuple[str, int], float]:
    with (RUN / "robustness.csv").open() as stream:
        return {(row["name"], int(row["severity"])): float(row["accuracy"]) for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_a_classifier_of_brightness_fails_on_changed_brightness(
    here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    for name, gray in {"dark": 110, "bright": 150}.items():
        write_images(here / "images" / name, 40, (gray, gray, gray))
    more = ["--test_after_fit", "false", "--data.batch_transforms", "[]", "--trainer.max_epochs", "8"]
    main(fit(here / "images", *more))
    main(["robustness", "--ckpt_path", "best", "--images", "11", *QUICK])
    shown = capsys.readouterr().out
    assert "11 images of the test split of" in shown and "mean of corruptions" in shown
    accuracy = table()
    assert accuracy["clean", 0] > 0.9
    assert accuracy["brightness", 5] < 0.7 < accuracy["jpeg", 1]
    for name in ("fgsm", "pgd"):
        accuracies = [accuracy[name, severity] for severity in range(1, 6)]
        assert accuracies == sorted(accuracies, reverse=True)
    assert sorted(item.name for item in Path("logs").iterdir()) == ["run"]
    assert "--images must be at least 1" in failing(["robustness", "--ckpt_path", "best", "--images", "0", *QUICK])


@pytest.mark.slow
def test_attacks_lower_accuracy_more_than_noise(here: Path) -> None:
    for name, color in COLORS.items():  # similar colors, so that a small change is enough
        write_images(here / "images" / name, 40, tuple(128 + (part - 128) // 12 for part in color))  # type: ignore[arg-type]
    main(fit(here / "images", "--test_after_fit", "false", "--trainer.max_epochs", "8"))
    main(["robustness", "--ckpt_path", "best", *QUICK])
    accuracy = table()
    assert accuracy["clean", 0] > 0.9 and accuracy["gaussian_noise", 1] > 0.8  # standard deviation 10 of 255
    assert accuracy["pgd", 5] < 0.3 and accuracy["pgd", 5] <= accuracy["fgsm", 5]
