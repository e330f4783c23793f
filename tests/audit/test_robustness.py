"""Robustness names what a net falls for, where that is known."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from project.audit.corruptions import CORRUPTIONS, MOVES, corrupt
from project.cli import main
from tests.conftest import COLORS, QUICK, fit, write_images

RUN = Path("logs/run/version_0")


@pytest.mark.parametrize("name", [*CORRUPTIONS, *MOVES])
@pytest.mark.parametrize("size", [32, 96])
def test_a_corruption_grows_with_its_severity_and_is_always_the_same(name: str, size: int) -> None:
    corruption = (CORRUPTIONS | MOVES)[name]
    grain = torch.rand(8, 3, size // 2, size // 2, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(grain, size, mode="bilinear")
    image = (60 + 120 * smooth).to(torch.uint8)
    changed = [corrupt(image, corruption, severity) for severity in range(1, 6)]
    assert all(each.dtype == torch.uint8 and each.shape == image.shape for each in changed)
    assert torch.equal(changed[2], corrupt(image, corruption, 3))
    distance = [float((each.float() - image).abs().mean()) for each in changed]
    assert 0 <= distance[0] < distance[4] < 128 and distance[4] > 2


def table() -> dict[tuple[str, int], float]:
    with (RUN / "robustness.csv").open() as stream:
        return {(row["name"], int(row["severity"])): float(row["accuracy"]) for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_a_net_that_tells_brightness_apart_fails_when_it_changes(
    here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    for name, gray in {"dark": 110, "bright": 150}.items():
        write_images(here / "images" / name, 40, (gray, gray, gray))
    more = ["--test_after_fit", "false", "--data.batch_transforms", "[]", "--trainer.max_epochs", "8"]
    main(fit(here / "images", *more))
    main(["robustness", "--ckpt_path", "best", "--images", "11", *QUICK])
    shown = capsys.readouterr().out
    assert "11 images of the test split of" in shown and "mean of corruptions" in shown
    found = table()
    assert found["clean", 0] > 0.9
    assert found["brightness", 5] < 0.7 < found["jpeg", 1]
    for name in ("fgsm", "pgd"):
        left = [found[name, severity] for severity in range(1, 6)]
        assert left == sorted(left, reverse=True)
    assert sorted(item.name for item in Path("logs").iterdir()) == ["run"]
    assert "--images must be at least 1" in failing(["robustness", "--ckpt_path", "best", "--images", "0", *QUICK])


@pytest.mark.slow
def test_an_attack_misleads_where_noise_of_its_size_does_not(here: Path) -> None:
    for name, color in COLORS.items():  # a little apart, so that a small change is enough
        write_images(here / "images" / name, 40, tuple(128 + (part - 128) // 12 for part in color))  # type: ignore[arg-type]
    main(fit(here / "images", "--test_after_fit", "false", "--trainer.max_epochs", "8"))
    main(["robustness", "--ckpt_path", "best", *QUICK])
    found = table()
    assert found["clean", 0] > 0.9 and found["gaussian_noise", 1] > 0.8  # a standard deviation of 10 of 255
    assert found["pgd", 5] < 0.3 and found["pgd", 5] <= found["fgsm", 5]
