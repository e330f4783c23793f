"""Tests of the check that a network works with the size of the images and of the batches."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from project.cli import main
from project.interface import ImageInput
from project.modules import classifier
from tests.conftest import fit


class Small(nn.Sequential):
    """A network with batch norm, dropout and a random choice, so that it has and uses state."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__(nn.Conv2d(inputs.channels, 8, 3), nn.AdaptiveMaxPool2d(1), nn.BatchNorm2d(8), nn.Dropout())
        self.append(nn.Flatten()).append(nn.Linear(8, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.flip(-1) if np.random.random() < 0.5 else image)


class TooDeep(Small):
    """A network that halves the image five times."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__(num_classes, inputs)
        for _ in range(5):
            self.insert(0, nn.MaxPool2d(2))


class Fixed(nn.Sequential):
    """A network that takes images of 9x9 only."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__(nn.Flatten(), nn.Linear(243, num_classes))


class Locked(Small):
    """A network that cannot be copied."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__(num_classes, inputs)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ("TooDeep", [], "does not work with images of 8x8 (Given input size: (3x1x1). Calculated output size: (3x0x0)"),
        ("TooDeep", [], "change data.image_size, e.g. --data.image_size 96, or model.net"),
        ("Fixed", [], "(mat1 and mat2 shapes cannot be multiplied (2x192 and 243x3)): change data.image_size or model"),
        ("Small", ["--data.batch_size", "1"], "Small cannot be trained on a batch of 1 image (Expected more than 1 va"),
        ("Small", ["--data.batch_size", "1"], "change data.batch_size 1, e.g. --data.batch_size 8"),
    ],
)
def test_wrong_sizes_are_one_line(
    tree: Path, here: Path, net: str, options: list[str], message: str, failing: Callable[[list[str]], str]
) -> None:
    assert message in failing([*fit(tree, "--model.net", f"tests.modules.test_probe.{net}"), *options])


@pytest.mark.parametrize("net", ["Small", "Locked"])
def test_check_changes_nothing(tree: Path, here: Path, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = []
    check = classifier.check_network

    def recorded(trainer: Any, net: nn.Module, *rest: Any) -> None:
        for stage in range(2):
            draws = [torch.get_rng_state(), *net.state_dict().values()]
            states.append([*(value.clone() for value in draws), torch.tensor(np.random.get_state()[2])])
            if stage == 0:
                check(trainer, net, *rest)

    monkeypatch.setattr(classifier, "check_network", recorded)
    main(fit(tree, "--model.net", f"tests.modules.test_probe.{net}", "--test_after_fit", "false"))
    before, after = states
    assert all(map(torch.equal, before, after))
