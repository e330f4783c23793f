"""Networks, pretrained weights and `model.init_from` for images of any number of channels and any shape."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from project.errors import UserError
from project.interface import ClassTarget, DataDescription, ImageInput
from project.modules import Classifier, ConvNet, ResNet, SpeedrunNet, Timm, TorchVision
from project.modules.init_weights import load_initial_weights
from project.modules.networks.weights import adapt_to_channels
from project.runs.spec import build_net

NETS: dict[str, Any] = {
    "ConvNet": ConvNet,
    "ResNet": partial(ResNet, depth=8),
    "SpeedrunNet": partial(SpeedrunNet, widths=(16, 32, 32)),
    "Timm": partial(Timm, name="test_resnet", weights=None),
    "TorchVision": partial(TorchVision, name="shufflenet_v2_x0_5", weights=None),
}


@pytest.mark.parametrize(("channels", "size"), [(1, (24, 40)), (3, (32, 32)), (5, (24, 40))])
@pytest.mark.parametrize("name", NETS)
def test_networks_take_any_channels_and_shape(name: str, size: tuple[int, int], channels: int) -> None:
    """As uint8 and as floats in [0, 1], with statistics of each channel."""
    inputs = ImageInput(*size, mean=[0.4] * channels, std=[0.2] * channels, channels=channels)
    model = Classifier(NETS[name])
    model.set_data_description(DataDescription(inputs, ClassTarget(["a", "b"], [1, 1])))
    model.configure_model()
    pixels = torch.randint(0, 256, (4, channels, *size), dtype=torch.uint8)
    if name == "SpeedrunNet":
        model.net.init_from_images(model.preprocess(pixels))
    model.eval()
    assert model(pixels).shape == (4, 2)
    assert torch.allclose(model(pixels), model(pixels / 255), atol=1e-5)
    changed = pixels.clone()
    changed[:, -1] = 255 - changed[:, -1]
    assert not torch.equal(model(changed), model(pixels)), "the last channel is seen"


@pytest.mark.parametrize(("net", "name"), [(Timm, "test_resnet"), (TorchVision, "resnet18")])
def test_rgb_weights_respond_to_gray_images_of_any_channels_alike(net: Any, name: str, tmp_path: Path) -> None:
    rgb = net(2, ImageInput(32, 32), name, None).eval()
    torch.save(rgb.net.state_dict(), tmp_path / "weights.pth")
    gray = torch.rand(2, 1, 32, 32)
    for channels in (1, 3, 6):
        inputs = ImageInput(32, 32, [0.1] * channels, [0.1] * channels, channels)
        adapted = net(2, inputs, name, str(tmp_path / "weights.pth")).eval()
        found = load_initial_weights(adapted, None, DataDescription(inputs, ClassTarget(["a", "b"], [1, 1])))
        assert (found == inputs) == (channels != 3), "other channels keep the statistics of the data"
        adapted.net.fc.load_state_dict(rgb.net.fc.state_dict())
        assert torch.allclose(adapted(gray.expand(-1, channels, -1, -1)), rgb(gray.expand(-1, 3, -1, -1)), atol=1e-4)
        torch.save(adapted.net.state_dict(), tmp_path / "own.pth")  # weights of its own channels are not adapted again
        again = net(2, inputs, name, str(tmp_path / "own.pth"))
        again.load_pretrained()
        assert all(torch.equal(again.state_dict()[k], v) for k, v in adapted.state_dict().items() if "fc" not in k)


def test_adapted_weights_are_those_of_timm() -> None:
    from timm.models import adapt_input_conv

    weight = torch.rand(4, 3, 3, 3)
    for channels in (1, 2, 4, 7):
        assert torch.allclose(adapt_to_channels(weight, channels), adapt_input_conv(channels, weight))


def test_shapes_that_a_network_cannot_take_are_refused_in_one_line() -> None:
    for net, message in (
        (partial(TorchVision, name="vit_b_16", weights=None), "takes square images only, not 24x40: give one number"),
        (partial(Timm, name="xcit_nano_12_p16_224", weights=None), "timm cannot build .* for images of 24x40: "),
    ):
        with pytest.raises(UserError, match=message):
            build_net(net, 2, ImageInput(24, 40))
    assert Timm(2, ImageInput(32, 64), "test_vit", None)(torch.rand(1, 3, 32, 64)).shape == (1, 2)


def test_init_from_adapts_the_first_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def described(channels: int) -> DataDescription:
        inputs = ImageInput(8, 8, [0.5] * channels, [0.5] * channels, channels)
        return DataDescription(inputs, ClassTarget(["a", "b"], [1, 1]))

    model = Classifier()
    model.set_data_description(described(3))
    model.configure_model()
    saved = {"data_description": described(3).to_dict(), "state_dict": model.state_dict()}
    monkeypatch.setattr("project.modules.init_weights.load_checkpoint", lambda file: saved)
    file = tmp_path / "last.ckpt"
    file.touch()
    net, said = ConvNet(2, described(5).image), list[str]()
    monkeypatch.setattr("project.modules.init_weights.rank_zero_info", said.append)
    assert load_initial_weights(net, str(file), described(5)) == described(5).input, "statistics of the data"
    assert "loaded 8 of 8" in said[0] and "features.0.weight adapted from 3 to 5 channels" in said[0]
    first, old = net.features[0], model.net.features[0]
    assert isinstance(first, nn.Conv2d) and isinstance(old, nn.Conv2d)
    assert torch.equal(first.weight[:, :3], old.weight * (3 / 5))
