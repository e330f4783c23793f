"""Attribution maps localize a known patch, are faithful, and depend on the weights."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.errors import UserError
from project.explain.attribution import (
    METHODS,
    Method,
    _to_nchw,
    attribution,
    faithfulness,
    overlays,
    random_attribution,
)
from project.interface import ClassTarget, DataDescription, ImageInput
from project.modules import Classifier, Timm
from project.modules.inputs import Normalize
from project.modules.tasks import Multiclass
from tests.explain.planted import NETS, classifier, flat, planted, trained

pytestmark = pytest.mark.slow

EACH = pytest.mark.parametrize(
    ("net", "method"),
    # Only Grad-CAM depends on the kind of network, whose feature maps it finds.
    [
        *(("ResNet", method) for method in METHODS),
        *((net, METHODS[0]) for net in ("ConvNet", "SpeedrunNet", "resnet of timm")),
    ],
)


class Corner(nn.Module):
    """A network whose class depends on one pixel."""

    preprocess = Normalize(ImageInput(16, 16, [0.0] * 3, [1.0] * 3))
    task = Multiclass(ClassTarget(["visible", "hidden"], [1, 1]))

    def forward(self, image: Tensor) -> Tensor:
        visible = image[:, 0, 0, 0] > 0
        return torch.stack([visible * 50.0, ~visible * 50.0], 1)


def localized(maps: Tensor, mask: Tensor) -> float:
    """Return the share of images whose maximum is within 4 pixels of the patch; the chance level is 0.22."""
    near = F.max_pool2d(mask.float(), 9, 1, 4).flatten(1)
    return float(near.gather(1, maps.flatten(1).argmax(1, keepdim=True)).mean())


@EACH
def test_map_localizes_the_patch(net: str, method: Method) -> None:
    image, label, mask = planted(32)
    maps = attribution(trained(net), image, label, method)
    assert maps.shape == (32, 32, 32) and not maps.requires_grad
    assert localized(maps, mask) > 0.9
    other = attribution(trained(net), image, (label + 1) % 3, method)
    inside = [(each * mask).sum((1, 2)) for each in (maps, other)]
    assert (inside[0] > inside[1]).float().mean() > 0.9, "the patch supports only its class"


@EACH
def test_more_faithful_than_a_random_baseline(net: str, method: Method) -> None:
    """Petsiuk et al., RISE, 2018."""
    image, label, _ = planted(32)
    model = trained(net)
    deletion, insertion = faithfulness(model, image, attribution(model, image, label, method), label)
    baseline = faithfulness(model, image, random_attribution(image), label)
    assert deletion.mean() < baseline[0].mean() - 0.1
    assert insertion.mean() > baseline[1].mean() + 0.05


@EACH
def test_map_changes_with_random_weights(net: str, method: Method) -> None:
    """Adebayo et al., Sanity Checks for Saliency Maps, 2018."""
    image, label, _ = planted(32)
    before, after = (attribution(model, image, label, method) for model in (trained(net), classifier(NETS[net])))
    pairs = torch.stack([before.flatten(1), after.flatten(1)], 1)
    assert torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs]).nan_to_num().abs().mean() < 0.7


def test_areas_if_the_class_depends_on_one_pixel() -> None:
    """Deletion is 0 and insertion 1, up to one step, if that pixel is first in order; the reverse if it is last."""
    image, target = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    maps = torch.zeros(2, 16, 16)
    maps[0, :2, :2], maps[1, :2, :2] = 1, -1
    deletion, insertion = faithfulness(Corner(), image, maps, target)  # type: ignore[arg-type]
    assert deletion.tolist() == pytest.approx([1 / 16, 15 / 16])
    assert insertion.tolist() == pytest.approx([15 / 16, 1 / 16])


@pytest.mark.parametrize("net", ["vit", "vit, mean"])
def test_vision_transformer_has_spatial_feature_maps(net: str) -> None:
    image, label, _ = planted(8)
    maps = attribution(classifier(NETS[net]), image, label)
    assert maps.shape == (8, 32, 32) and (maps.flatten(1).std(1) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["convnext_atto", "swin_tiny_patch4_window7_224", "vgg11", "deit_tiny_distilled_patch16_224"]
)
def test_timm_networks_have_spatial_feature_maps(name: str) -> None:
    size = 64 if "deit" in name else 32
    image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    model = classifier(partial(Timm, name=name, weights=None), size)
    assert (attribution(model, image, torch.zeros(2, dtype=torch.long)).flatten(1).std(1) > 0).all()


def test_layouts_of_feature_maps() -> None:
    features = torch.rand(2, 6, 4, 4)
    tokens = torch.cat([torch.rand(2, 3, 6), features.flatten(2).transpose(1, 2)], 1)
    for output in (features, features.permute(0, 2, 3, 1), tokens):
        to_nchw = _to_nchw(output, 2, (4, 4))
        assert to_nchw is not None and torch.equal(to_nchw(output), features)
    for output in (torch.rand(2, 6, 1, 1), torch.rand(2, 6, 8, 8), torch.rand(2, 6), torch.rand(8, 16, 6)):
        assert _to_nchw(output, 2, (4, 4)) is None


def test_layouts_of_feature_maps_that_are_not_square() -> None:
    features = torch.rand(2, 60, 3, 5)
    for output in (features, features.permute(0, 2, 3, 1), features.flatten(2).transpose(1, 2)):
        to_nchw = _to_nchw(output, 2, (24, 40) if output.ndim == 4 else (3, 5))
        assert to_nchw is not None and torch.equal(to_nchw(output), features)
    for output in (torch.rand(2, 6, 5, 3), torch.rand(2, 6, 1, 1), torch.rand(2, 3, 30, 50)):
        assert _to_nchw(output, 2, (24, 40)) is None


@pytest.mark.parametrize(
    ("channels", "size", "dtype"),
    [
        (1, (24, 40), torch.float32),
        (3, (24, 40), torch.uint8),
        (5, (32, 32), torch.float32),
        (5, (24, 40), torch.uint8),
    ],
)
def test_any_channels_shape_and_depth(channels: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Padding gets no attribution, and what is in it does not change the faithfulness of a map."""
    inputs = ImageInput(*size, [0.5] * channels, [0.2] * channels, channels)
    model = Classifier(NETS["ResNet"])
    model.set_data_description(DataDescription(inputs, ClassTarget(["a", "b"], [1, 1])))
    model.configure_model()
    model.eval()
    pixels = torch.randint(0, 256, (2, channels, *size), generator=torch.Generator().manual_seed(0))
    image, target = (pixels.to(torch.uint8) if dtype == torch.uint8 else pixels / 255), torch.tensor([0, 1])
    mask = (torch.arange(size[1]) < 18).expand(2, 1, *size)
    for method in METHODS:
        maps = attribution(model, image, target, method, mask)
        assert maps.shape == (2, *size) and maps.any() and not maps[:, :, 18:].any() and not image.requires_grad
        noisy = maps + torch.rand(maps.shape) * ~mask[:, 0]
        results = [faithfulness(model, image, each, target, mask) for each in (maps, noisy)]
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    overlaid = overlays(model, image, target, 80, mask)
    assert (
        overlaid is not None
        and overlaid[0].mode == "RGB"
        and overlaid[0].width / overlaid[0].height == size[1] / size[0]
    )


def test_padding_is_not_removed_for_the_faithfulness_of_a_map() -> None:
    """The areas of an image whose only evidence is in the padding are those of a constant probability."""
    image, target = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)
    mask = (torch.arange(16) >= 4).expand(1, 1, 16, 16)
    areas = faithfulness(Corner(), image, torch.rand(1, 16, 16), target, mask)  # type: ignore[arg-type]
    assert [float(area) for area in areas] == pytest.approx([1, 1])


def test_frozen_network_is_explained() -> None:
    image, label, _ = planted(4)
    model = classifier(NETS["ResNet"]).requires_grad_(False)
    assert attribution(model, image, label).any()


def test_error_for_a_network_without_spatial_feature_maps() -> None:
    image, label, _ = planted(2)
    with pytest.raises(UserError, match="Sequential has none.*integrated_gradients"):
        attribution(classifier(flat), image, label)
    assert attribution(classifier(flat), image, label, "integrated_gradients").any()
