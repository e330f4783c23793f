"""Explanations, corruptions, augmentation and display take images of any channels, shape and depth."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from project.audit.corruptions import CORRUPTIONS, GEOMETRIC, corrupt
from project.datamodules.images.augment import augment, default_augmentation
from project.explain.attribution import METHODS, attribution, faithfulness, random_attribution
from project.explain.features import embed, feature_maps_image, filters_image
from project.interface import Batch, ClassTarget, DataDescription, ImageInput
from project.modules import Classifier, ResNet, Timm

NETS: dict[str, Callable[..., nn.Module]] = {
    "ResNet": partial(ResNet, depth=8),
    "timm, attention": partial(Timm, name="test_vit", weights=None),
}


def image_input(channels: int, size: tuple[int, int], depth: str) -> ImageInput:
    options = {} if depth == "uint8" else {"dtype": depth, "value_range": [0.0, 255.0]}
    return ImageInput(*size, [0.5] * channels, [0.2] * channels, channels=channels, **options)  # type: ignore[arg-type]


def classifier(net: Callable[..., nn.Module], inputs: ImageInput) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(net)
    model.set_data_description(DataDescription(inputs, ClassTarget(["a", "b", "c"], [1, 1, 1])))
    model.configure_model()
    return model.eval()


def images(inputs: ImageInput) -> Tensor:
    """Return two images as the dataset does."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, inputs.channels, *inputs.size))
    return inputs.prepare(torch.from_numpy(pixels.astype(inputs.dtype)))


@pytest.mark.parametrize("net", NETS)
def test_explanations(net: str) -> None:
    model = classifier(NETS[net], image_input(5, (64, 48), "uint16"))
    head = model.net.head if net == "ResNet" else model.net.net.head  # type: ignore[union-attr]
    nn.init.normal_(head.weight)  # type: ignore[union-attr, arg-type]
    image, target = images(model.data_description.image), torch.zeros(2, dtype=torch.long)
    content = torch.zeros(2, 1, 64, 48, dtype=torch.bool)
    content[:, :, 16:48] = True
    for method in METHODS:
        maps = attribution(model, image, target, method, content)
        assert maps.shape == (2, 64, 48) and maps[:, 16:48].any()
        assert not maps[:, :16].any() and not maps[:, 48:].any(), "padding is not evidence"
    assert not image.requires_grad
    filters, feature_maps = filters_image(model.net), feature_maps_image(model, image[0])
    assert filters is not None and feature_maps is not None and len(embed(model, image)) == 2


class Edge(nn.Module):
    """A network that sees only the top eight rows."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        edge = image[:, :, :8].mean((1, 2, 3))
        return torch.stack([edge, -edge, edge * 0], 1) * self.weight


def test_faithfulness_removes_no_padding() -> None:
    model = classifier(Edge, image_input(1, (32, 32), "uint8"))
    image, content = images(model.data_description.image), torch.ones(2, 1, 32, 32, dtype=torch.bool)
    content[:, :, :8] = False
    target = torch.zeros(2, dtype=torch.long)
    for area in faithfulness(model, image, random_attribution(image), target, content):
        torch.testing.assert_close(area, model.predictions(image)[:, 0])


@pytest.mark.parametrize(("channels", "depth"), [(1, "uint8"), (4, "uint16")])
def test_corruptions_and_augmentation(channels: int, depth: str) -> None:
    image = images(image_input(channels, (24, 40), depth))
    for name, corruption in (CORRUPTIONS | GEOMETRIC).items():
        if name != "jpeg" or channels == 1:  # the command skips it for four channels
            corrupted = corrupt(image, corruption, 3)
            assert corrupted.shape == image.shape and corrupted.dtype == image.dtype, name
            assert not torch.equal(corrupted, image), name
    batch = augment(Batch(image, torch.tensor([0, 1]), torch.arange(2)), default_augmentation(), 2)
    assert batch.inputs.shape == image.shape and batch.inputs.dtype == torch.float32
    assert batch.inputs.min() >= 0 and batch.inputs.max() <= 1 and batch.inputs.std() > 0.1


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_render_shows_three_channels_or_the_first_in_gray(channels: int, depth: str) -> None:
    inputs = image_input(channels, (6, 9), depth)
    image = images(inputs)[0].numpy()
    rendered = np.asarray(inputs.render(image))
    levels = image if depth == "uint8" else (image * 255).round()
    for shown in range(3):
        assert np.array_equal(rendered[..., shown], levels[0 if channels < 3 else shown])
