"""Pretrained networks of timm and torchvision."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from project.errors import UserError
from project.interface import ImageInput
from project.modules.layers import head
from project.modules.networks.weights import (
    adapt_to_channels,
    download_from_hub,
    download_from_url,
    mismatch_error,
    read_weights,
)
from project.output import did_you_mean, pluralize


class Pretrained(nn.Module):
    """Base class of networks with pretrained weights, with the normalization and image size of the pretraining.

    Weights pretrained on RGB images are adapted to other numbers of channels, see `adapt_to_channels`.
    """

    net: nn.Module
    pretrained_mean: list[float]
    pretrained_std: list[float]
    pretrained_size: int

    def __init__(self, inputs: ImageInput, name: str, weights: str | None) -> None:
        super().__init__()
        self.size, self.channels, self.name, self.weights = inputs.size, inputs.channels, name, weights
        self._heads: tuple[str, ...] = ()
        self._repository: str | None = None
        self._url: Any = None
        self._arguments: dict[str, Any] = {}

    def init_pretrained(self, inputs: ImageInput) -> ImageInput:
        """Load the pretrained weights if there are any, and return the inputs with their normalization.

        The normalization of the data is kept if the weights were trained on another number of channels.
        """
        if self.weights is None:
            return inputs
        self.load_pretrained()
        if set(self.size) != {self.pretrained_size}:
            size = self.size[0] if self.size[0] == self.size[1] else [*self.size]
            rank_zero_warn(
                f"{self.name} was pretrained on images of {self.pretrained_size} pixels, but data.image_size is {size}"
            )
        if self.channels != 3:
            rank_zero_warn(
                f"{self.name} was pretrained on RGB images; its first layer was adapted to"
                f" {pluralize(self.channels, 'channel')}"
            )
            return inputs
        return replace(inputs, mean=self.pretrained_mean, std=self.pretrained_std)

    def load_pretrained(self) -> None:
        """Load the pretrained weights, except for the head, which is initialized to zero.

        A randomly initialized head would disturb the pretrained layers. Kolesnikov et al., Big Transfer (BiT): General
        Visual Representation Learning, 2020 (section 3.3).
        """
        if self.weights != "hub":
            file = Path(str(self.weights))
        elif self._repository or self._url:
            file = download_from_hub(self._repository) if self._repository else download_from_url(self._url)
        else:
            raise UserError(f"timm has no pretrained weights for {self.name}: pass --model.net.weights FILE or null")
        state = read_weights(file)
        try:
            pretrained = self.build_with_head(state).state_dict()
        except (RuntimeError, KeyError) as error:
            raise mismatch_error(file, self.name, error) from error
        heads = tuple(f"{name}." for name in self._heads)
        self.net.load_state_dict({k: v for k, v in pretrained.items() if not k.startswith(heads)}, strict=False)
        for name in self._heads:
            for parameter in self.net.get_submodule(name).parameters():
                nn.init.zeros_(parameter)

    def build_with_head(self, state: dict[str, Tensor]) -> nn.Module:
        """Build the network with the number of classes of a state dict and load it."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, channels, height, width) to logits (N, num_classes)."""
        logits: Tensor = self.net(x)
        return logits


class Timm(Pretrained):
    """A timm model with a new head; requires the extra `transfer`.

    Args:
        num_classes: Number of classes.
        inputs: Image size and channels.
        name: Model name, e.g. `resnet50`, or with a pretrained tag, e.g. `resnet50.a1_in1k`.
        weights: Pretrained weights: `hub` to download and cache them, a .safetensors or .pth file, or null to train
            from scratch.
        drop_rate: Dropout probability before the head, in [0, 1).

    Raises:
        ValueError: If timm has no such model or pretrained tag, or cannot build it for these images.
    """

    def __init__(
        self, num_classes: int, inputs: ImageInput, name: str, weights: str | None = "hub", drop_rate: float = 0.0
    ) -> None:
        super().__init__(inputs, name, weights)
        import timm
        from timm.models import get_pretrained_cfg

        if not timm.is_model(name):
            raise ValueError(
                f"timm has no model {name}{did_you_mean(name, {each: each for each in timm.list_models()})}"
            )
        try:
            config = get_pretrained_cfg(name, allow_unregistered=False)
        except RuntimeError as error:  # unknown pretrained tag
            raise ValueError(str(error)) from error
        assert config is not None
        self._repository, self._url, self._classes = config.hf_hub_id, config.url, config.num_classes
        self._heads = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
        self._arguments = {"drop_rate": drop_rate} if drop_rate else {}
        if inputs.channels != 3:
            self._arguments["in_chans"] = inputs.channels
        if config.fixed_input_size:
            self._arguments["img_size"] = inputs.height if inputs.height == inputs.width else inputs.size
        try:
            self.net = timm.create_model(name, num_classes=num_classes, **self._arguments)
        except (AssertionError, RuntimeError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"timm cannot build {name} for images of {inputs}: {reason}") from error
        self.pretrained_mean, self.pretrained_std = list(config.mean), list(config.std)
        self.pretrained_size = config.input_size[-1]

    def build_with_head(self, state: dict[str, Tensor]) -> nn.Module:
        """Build the network and load a state dict; timm adapts position embeddings and the first convolution."""
        import timm

        # With another number of classes than in the file, timm would load non-strictly and hide missing keys.
        heads = [state[f"{name}.weight"] for name in self._heads if f"{name}.weight" in state]
        classes = len(heads[0]) if heads else self._classes
        overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0}
        options = {"pretrained_cfg_overlay": overlay, "num_classes": classes, **self._arguments}
        return timm.create_model(self.name, pretrained=True, **options)


class TorchVision(Pretrained):
    """A torchvision classification model with a new head.

    Args:
        num_classes: Number of classes.
        inputs: Image size and channels.
        name: Model name, e.g. `resnet18`; googlenet and inception_v3 are not supported, as they return auxiliary logits
            in training.
        weights: Pretrained weights: `hub` to download and cache the default ones, a .pth or .safetensors file, or null
            to train from scratch.

    Raises:
        ValueError: If torchvision has no such model, or a vision transformer gets images that are not square.
    """

    def __init__(self, num_classes: int, inputs: ImageInput, name: str, weights: str | None = "hub") -> None:
        super().__init__(inputs, name, weights)
        from torchvision import models

        names = {net: net for net in models.list_models(module=models) if net not in ("googlenet", "inception_v3")}
        if name not in names:
            raise ValueError(f"torchvision has no supported classification model {name}{did_you_mean(name, names)}")
        if name.startswith("vit_"):
            if inputs.height != inputs.width:
                fix = "give one number as data.image_size, or use a vision transformer of timm"
                raise ValueError(f"{name} of torchvision takes square images only, not {inputs}: {fix}")
            self._arguments = {"image_size": inputs.height}
        self.net = self._build(num_classes)
        self._heads = tuple(name for name, module in self.net.named_modules() if module is head(self.net))
        published = models.get_model_weights(name).DEFAULT
        transforms = published.transforms()
        self._url, self._classes = published.url, len(published.meta["categories"])
        self.pretrained_mean, self.pretrained_std = transforms.mean, transforms.std
        self.pretrained_size = transforms.crop_size[0]

    def _build(self, num_classes: int) -> nn.Module:
        from torchvision import models

        net: nn.Module = models.get_model(self.name, weights=None, num_classes=num_classes, **self._arguments)
        if self.channels != 3:
            name, conv = _first_convolution(net)
            options = (conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
            net.set_submodule(name, nn.Conv2d(self.channels, *options, bias=conv.bias is not None))  # type: ignore[arg-type]
        return net

    @override
    def build_with_head(self, state: dict[str, Tensor]) -> nn.Module:
        # Published DenseNet weights use the old names, e.g. norm.1 for norm1.
        old_name = r"(denselayer\d+\.(?:norm|conv))\.([12])\."
        state = {re.sub(old_name, r"\1\2.", name): value for name, value in state.items()}
        head_weight = f"{self._heads[0]}.weight"
        classes = len(state[head_weight]) if head_weight in state else self._classes
        net = self._build(classes)
        first = f"{_first_convolution(net)[0]}.weight"
        if first in state and state[first].shape[1] == 3:
            state[first] = adapt_to_channels(state[first], self.channels)
        net.load_state_dict(state)
        return net


def _first_convolution(net: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
