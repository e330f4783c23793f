"""Fixtures: an untrained model and a server for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from project.deploy.export import metadata, write
from project.interface import ClassTarget, DataDescription, ImageInput, Target
from project.modules import Classifier
from tests.serve.running import Server, serving

NAMES = ["blue", "green", "red"]
SIZE = 24


class Means(torch.nn.Module):
    """Linear model of the mean colors of the left and right half of an image, with known attribution."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.head = torch.nn.Linear(6, num_classes)
        weight = torch.tensor([[-1.0, -1, 2], [-1, 2, -1], [2, -1, -1]])
        self.head.weight.data = torch.cat([weight * 1.5, weight * 0.1], 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits for NCHW images; the left half has larger weights."""
        half = image.shape[3] // 2
        logits: torch.Tensor = self.head(torch.cat([image[..., :half].mean((2, 3)), image[..., half:].mean((2, 3))], 1))
        return logits


def build(target: Target) -> Classifier:
    """Return a model with three outputs in evaluation mode."""
    classifier = Classifier(Means)
    inputs = ImageInput(SIZE, SIZE, [0.4, 0.5, 0.6], [0.2, 0.2, 0.2])
    classifier.set_data_description(DataDescription(inputs, target, "made"))
    classifier.configure_model()
    return classifier.eval()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model with a temperature and a confidence threshold."""
    torch.manual_seed(0)
    classifier = build(ClassTarget(NAMES, [1, 1, 1], 0.6))
    classifier.task.temperature.fill_(1.7)
    file = tmp_path_factory.mktemp("model") / "model.onnx"
    write(file, classifier, metadata(classifier, Path("best.ckpt")), "onnx")
    return file


@pytest.fixture(scope="session")
def server(model: Path) -> Iterator[Server]:
    """A server with default options."""
    with serving(model) as running:
        yield running
