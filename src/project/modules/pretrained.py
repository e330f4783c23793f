"""Networks by name, with or without pretrained weights."""

import difflib
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from project.errors import UserError
from project.modules.layers import head
from project.modules.weights import copy_body, downloaded, downloaded_from_hub, misfit, read_weights


class Pretrained(nn.Module):
    """What the classifier asks of a net that brings weights.

    Attributes:
        image_size: Height and width of the images that it is to see.
        pretrained_mean: Mean of each RGB channel, in [0, 1], by which the images were normalised that the weights were
            trained on; the classifier takes it in place of the data's.
        pretrained_std: Standard deviation, alike.
        pretrained_size: Height and width of those images.
    """

    net: nn.Module
    pretrained_mean: list[float]
    pretrained_std: list[float]
    pretrained_size: int

    def __init__(self, image_size: int, name: str, weights: str | None) -> None:
        super().__init__()
        self.image_size, self.name, self.weights = image_size, name, weights

    def take_pretrained(self) -> None:
        """Copy the pretrained weights in, all but the head's; the classifier calls it once, where a new run begins.

        Raises:
            UserError: there are none, they cannot be downloaded, or they do not fit.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, 3, image_size, image_size) to logits (N, num_classes)."""
        logits: Tensor = self.net(x)
        return logits


class Timm(Pretrained):
    """A network of timm by its name, with a new head; needs the extra `transfer`.

    Args:
        num_classes: Number of classes.
        image_size: Height and width of the images.
        name: As timm has it, such as `resnet50` or, for one of several sets of weights, `resnet50.a1_in1k`.
        weights: `hub` downloads the weights once; a .safetensors or .pth file holds them; null trains from scratch.
        drop_rate: Probability of dropping a feature before the head, in [0, 1).

    Raises:
        ValueError: timm has no such network.
    """

    def __init__(
        self, num_classes: int, image_size: int, name: str, weights: str | None = "hub", drop_rate: float = 0.0
    ) -> None:
        super().__init__(image_size, name, weights)
        import timm
        from timm.models import get_pretrained_cfg

        if not timm.is_model(name):
            raise ValueError(f"timm has no network {name}{_hint(name, timm.list_models())}")
        try:
            config = get_pretrained_cfg(name, allow_unregistered=False)
        except RuntimeError as error:  # no such set of weights
            raise ValueError(str(error)) from error
        assert config is not None
        self._repository, self._url, self._classes = config.hf_hub_id, config.url, config.num_classes
        self._heads = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
        self._arguments: dict[str, Any] = {"drop_rate": drop_rate} if drop_rate else {}
        if config.fixed_input_size:
            self._arguments["img_size"] = image_size
        self.net = timm.create_model(name, num_classes=num_classes, **self._arguments)
        self.pretrained_mean, self.pretrained_std = list(config.mean), list(config.std)
        self.pretrained_size = config.input_size[-1]

    def take_pretrained(self) -> None:
        """See `Pretrained`; what depends on the size of the images, such as places, is interpolated by timm."""
        import timm

        if self.weights is None:
            return
        if self.weights != "hub":
            file = Path(self.weights)
        elif self._repository or self._url:
            file = downloaded_from_hub(self._repository) if self._repository else downloaded(str(self._url))
        else:
            raise UserError(f"timm has no pretrained weights for {self.name}: give --model.net.weights FILE or null")
        state = read_weights(file)
        known = [state[f"{name}.weight"] for name in self._heads if f"{name}.weight" in state]
        classes = len(known[0]) if known else self._classes
        overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0}
        try:  # with the classes of the file: with others timm would pass over whatever else is missing
            source = timm.create_model(
                self.name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **self._arguments
            )
        except (RuntimeError, KeyError) as error:
            raise misfit(file, self.name, error) from error
        copy_body(self._heads, source, self.net)


class TorchVision(Pretrained):
    """A classification network of torchvision by its name, with a new head.

    Args:
        num_classes: Number of classes.
        image_size: Height and width of the images.
        name: As torchvision has it, such as `resnet18`; not googlenet and inception_v3, which answer otherwise in
            training than outside it.
        weights: `hub` downloads the newest weights once; a .pth or .safetensors file holds them; null trains from
            scratch.

    Raises:
        ValueError: torchvision has no such network.
    """

    def __init__(self, num_classes: int, image_size: int, name: str, weights: str | None = "hub") -> None:
        super().__init__(image_size, name, weights)
        from torchvision import models

        names = [net for net in models.list_models(module=models) if net not in ("googlenet", "inception_v3")]
        if name not in names:
            raise ValueError(f"torchvision has no network {name} for one image{_hint(name, names)}")
        self._arguments = {"image_size": image_size} if name.startswith("vit_") else {}
        self.net = models.get_model(name, weights=None, num_classes=num_classes, **self._arguments)
        published = models.get_model_weights(name).DEFAULT
        images = published.transforms()
        self._url, self._classes = published.url, len(published.meta["categories"])
        self.pretrained_mean, self.pretrained_std = images.mean, images.std
        self.pretrained_size = images.crop_size[0]

    def take_pretrained(self) -> None:
        """See `Pretrained`."""
        from torchvision import models

        if self.weights is None:
            return
        file = downloaded(self._url) if self.weights == "hub" else Path(self.weights)
        # As the files of densenets still have it, norm.1 is now norm1.
        state = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name): value
            for name, value in read_weights(file).items()
        }
        last = next(name for name, module in self.net.named_modules() if module is head(self.net))
        classes = len(state[f"{last}.weight"]) if f"{last}.weight" in state else self._classes
        source = models.get_model(self.name, weights=None, num_classes=classes, **self._arguments)
        try:
            source.load_state_dict(state)
        except RuntimeError as error:
            raise misfit(file, self.name, error) from error
        copy_body((last,), source, self.net)


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
