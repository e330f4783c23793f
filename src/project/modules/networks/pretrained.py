"""Networks by name, with or without pretrained weights."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from project.errors import UserError
from project.interface import ImageInput
from project.modules.layers import head
from project.modules.networks.weights import downloaded, downloaded_from_hub, misfit, read_weights
from project.output import did_you_mean


class Pretrained(nn.Module):
    """What the classifier asks of a net that brings weights, and of the images that these were trained on."""

    net: nn.Module
    pretrained_mean: list[float]
    pretrained_std: list[float]
    pretrained_size: int

    def __init__(self, inputs: ImageInput, name: str, weights: str | None) -> None:
        super().__init__()
        self.image_size, self.name, self.weights = inputs.height, name, weights
        self._heads: tuple[str, ...] = ()
        self._repository: str | None = None
        self._url: Any = None
        self._arguments: dict[str, Any] = {}

    def load_pretrained(self) -> None:
        """Copy the pretrained weights in, all but the head's, which begins at zero, once where a new run begins.

        Drawn at random, a head would disturb the layers before it. Kolesnikov et al., Big Transfer (BiT): General
        Visual Representation Learning, 2020 (section 3.3).
        """
        if self.weights != "hub":
            file = Path(str(self.weights))
        elif self._repository or self._url:
            file = downloaded_from_hub(self._repository) if self._repository else downloaded(self._url)
        else:
            raise UserError(f"timm has no pretrained weights for {self.name}: give --model.net.weights FILE or null")
        state = read_weights(file)
        try:
            whole = self.build_with_head(state).state_dict()
        except (RuntimeError, KeyError) as error:
            raise misfit(file, self.name, error) from error
        heads = tuple(f"{name}." for name in self._heads)
        self.net.load_state_dict({k: v for k, v in whole.items() if not k.startswith(heads)}, strict=False)
        for name in self._heads:
            for parameter in self.net.get_submodule(name).parameters():
                nn.init.zeros_(parameter)

    def build_with_head(self, state: dict[str, Tensor]) -> nn.Module:
        """Return the net with as many classes as a file of weights has, and with these."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, 3, height, width) to logits (N, num_classes)."""
        logits: Tensor = self.net(x)
        return logits


class Timm(Pretrained):
    """A network of timm by its name, with a new head; needs the extra `transfer`.

    Args:
        num_classes: Number of classes.
        inputs: The images.
        name: As timm has it, such as `resnet50` or, for one of several sets of weights, `resnet50.a1_in1k`.
        weights: `hub` downloads the weights once; a .safetensors or .pth file holds them; null trains from scratch.
        drop_rate: Probability of dropping a feature before the head, in [0, 1).

    Raises:
        ValueError: timm has no such network.
    """

    def __init__(
        self, num_classes: int, inputs: ImageInput, name: str, weights: str | None = "hub", drop_rate: float = 0.0
    ) -> None:
        super().__init__(inputs, name, weights)
        import timm
        from timm.models import get_pretrained_cfg

        if not timm.is_model(name):
            raise ValueError(
                f"timm has no network {name}{did_you_mean(name, {each: each for each in timm.list_models()})}"
            )
        try:
            config = get_pretrained_cfg(name, allow_unregistered=False)
        except RuntimeError as error:  # no such set of weights
            raise ValueError(str(error)) from error
        assert config is not None
        self._repository, self._url, self._classes = config.hf_hub_id, config.url, config.num_classes
        self._heads = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
        self._arguments = {"drop_rate": drop_rate} if drop_rate else {}
        if config.fixed_input_size:
            self._arguments["img_size"] = inputs.height
        self.net = timm.create_model(name, num_classes=num_classes, **self._arguments)
        self.pretrained_mean, self.pretrained_std = list(config.mean), list(config.std)
        self.pretrained_size = config.input_size[-1]

    def build_with_head(self, state: dict[str, Tensor]) -> nn.Module:
        """See `Pretrained`; what depends on the size of the images, such as places, is interpolated by timm."""
        import timm

        # With other classes than the file's, timm would pass over whatever else is missing.
        known = [state[f"{name}.weight"] for name in self._heads if f"{name}.weight" in state]
        classes = len(known[0]) if known else self._classes
        overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0}
        given = {"pretrained_cfg_overlay": overlay, "num_classes": classes, **self._arguments}
        return timm.create_model(self.name, pretrained=True, **given)


class TorchVision(Pretrained):
    """A classification network of torchvision by its name, with a new head.

    Args:
        num_classes: Number of classes.
        inputs: The images.
        name: As torchvision has it, such as `resnet18`; not googlenet and inception_v3, which answer otherwise in
            training than outside it.
        weights: `hub` downloads the newest weights once; a .pth or .safetensors file holds them; null trains from
            scratch.

    Raises:
        ValueError: torchvision has no such network.
    """

    def __init__(self, num_classes: int, inputs: ImageInput, name: str, weights: str | None = "hub") -> None:
        super().__init__(inputs, name, weights)
        from torchvision import models

        names = {net: net for net in models.list_models(module=models) if net not in ("googlenet", "inception_v3")}
        if name not in names:
            raise ValueError(f"torchvision has no network {name} for one image{did_you_mean(name, names)}")
        self._arguments = {"image_size": inputs.height} if name.startswith("vit_") else {}
        self.net = models.get_model(name, weights=None, num_classes=num_classes, **self._arguments)
        self._heads = tuple(name for name, module in self.net.named_modules() if module is head(self.net))
        published = models.get_model_weights(name).DEFAULT
        images = published.transforms()
        self._url, self._classes = published.url, len(published.meta["categories"])
        self.pretrained_mean, self.pretrained_std = images.mean, images.std
        self.pretrained_size = images.crop_size[0]

    def build_with_head(self, state: dict[str, Tensor]) -> nn.Module:
        """See `Pretrained`."""
        from torchvision import models

        # As the files of densenets still have it, norm.1 is now norm1.
        older = r"(denselayer\d+\.(?:norm|conv))\.([12])\."
        state = {re.sub(older, r"\1\2.", name): value for name, value in state.items()}
        last = f"{self._heads[0]}.weight"
        classes = len(state[last]) if last in state else self._classes
        net: nn.Module = models.get_model(self.name, weights=None, num_classes=classes, **self._arguments)
        net.load_state_dict(state)
        return net
