"""Tests of ablation, feature visualization and overlays, on a network with known channels."""

import torch
from torch import Tensor, nn

from project.explain.ablation import ablate
from project.explain.features import embed, feature_maps_image, filters_image
from project.explain.render import overlay
from project.interface import ImageInput
from tests.explain.planted import COLORS, NAMES, classifier, planted


class Wired(nn.Module):
    """A network with one channel per class, an unused channel and an identity layer before the head."""

    def __init__(self, classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.colors = nn.Conv2d(3, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.idle = nn.Conv2d(4, 4, 1, bias=False)
        self.idle_norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes, bias=False)
        with torch.no_grad():
            self.colors.weight.copy_(
                torch.tensor([[-1, -1, 2], [-1, 2, -1], [2, -1, -1], [0, 0, 0.0]])[..., None, None]
            )
            self.idle.weight.copy_(torch.eye(4)[..., None, None])
            self.head.weight.copy_(9 * torch.eye(4)[:3])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.colors(x)).clamp(min=0)
        return self.head(self.idle_norm(self.idle(x)).mean((2, 3)))  # type: ignore[no-any-return]


def test_ablating_the_channel_of_a_class_loses_its_images() -> None:
    image, label, _ = planted(48)
    model = classifier(Wired)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = {(row["layer"], row["channel"]): row for row in ablate(model, image, label)}
    assert rows["norm", ""]["how"] == "zeroed" and rows["norm", ""]["accuracy_lost"] > 0.5
    assert rows["idle_norm", ""]["how"] == "skipped" and rows["idle_norm", ""]["accuracy_lost"] == 0
    share = torch.bincount(label, minlength=len(NAMES)) / len(label)
    for channel in range(3):
        # Without its channel, a class is predicted as the first one.
        assert abs(rows["norm", channel]["accuracy_lost"] - (float(share[channel]) if channel else 0)) < 0.01
        assert rows["norm", channel]["probability_lost"] > 0.05
    assert abs(rows["norm", 3]["probability_lost"]) < 1e-6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(image).argmax(1), label), "hooks are removed"


def test_embeddings_are_the_input_of_the_head() -> None:
    image, _, _ = planted(70)
    model = classifier(Wired)
    features = embed(model, image)
    assert features.shape == (70, 4)
    assert torch.allclose(model.net.head(features), model(image), atol=1e-5)  # type: ignore[union-attr, operator]


def test_images_of_filters_and_feature_maps() -> None:
    image, _, _ = planted(1)
    model = classifier(Wired)
    filters = filters_image(model.net)  # type: ignore[arg-type]
    assert filters is not None and filters.getpixel((32, 58)) == (0, 0, 255), "the filter for blue is blue"
    maps = feature_maps_image(model, image[0])
    assert maps is not None and maps.width > 4 * 128 and maps.height > 2 * 128
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32**2, 3))
    assert filters_image(flat) is None
    assert feature_maps_image(classifier(lambda classes, inputs: flat), image[0]) is None


def test_overlay_is_colored_where_the_attribution_is_positive() -> None:
    image = COLORS[2].to(torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    attribution = torch.full((32, 32), -1.0)
    attribution[:8, 24:] = 0.002
    overlaid = overlay(image, attribution)
    assert overlaid.size == (256, 256) and overlaid.mode == "RGB"
    inside, outside = overlaid.getpixel((240, 16)), overlaid.getpixel((16, 240))
    assert isinstance(inside, tuple) and isinstance(outside, tuple)
    assert inside[0] > inside[2] + 60 and max(outside) - min(outside) < 40, "colored inside, gray outside"
    assert overlay(image.repeat(1, 10, 10), attribution.repeat(10, 10)).size == (320, 320), (
        "large images are not resized"
    )
    assert overlay(image, torch.zeros(32, 32)).getpixel((16, 240)) == outside
    padded = torch.arange(32).expand(1, 32, 32) < 28
    gray = overlay(image, attribution, mask=padded).getpixel((240, 16))
    assert isinstance(gray, tuple) and len(set(gray)) == 1, "padding is not colored"
