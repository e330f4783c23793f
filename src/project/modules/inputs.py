"""Normalization and test-time augmentation."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.interface import ImageInput

TestTimeAugmentation = Literal["none", "flip", "flip_translate"]


def unit_range(image: Tensor) -> Tensor:
    """Return images, uint8 in [0, 255] or float in [0, 1], as float in [0, 1]."""
    return image if image.is_floating_point() else image / 255


class Normalize(nn.Module):
    """Normalize images with the mean and standard deviation of each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: ImageInput) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(inputs.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(inputs.std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Normalize images (N, C, H, W), uint8 in [0, 255] or float in [0, 1], to float."""
        x = image.to(self.mean.dtype)
        if not image.is_floating_point():
            x = x / 255
        return (x - self.mean) / self.std


def tta_logits(net: Callable[[Tensor], Tensor], image: Tensor, tta: TestTimeAugmentation) -> Tensor:
    """Return logits (N, classes) of float images (N, C, H, W), averaged over test-time augmentation.

    `flip` averages the image and its horizontal flip, at twice the cost. `flip_translate` adds both of them translated
    by one pixel towards two opposite corners; the translated images get half the total weight, at six times the cost.
    Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024 (arXiv 2404.00498, section 3.5).
    """
    if tta == "none":
        return net(image)
    # Clone: with CUDA graphs (`--model.compile`), the second call overwrites the output of the first.
    centered = (net(image).clone() + net(image.flip(-1))) / 2
    if tta == "flip":
        return centered
    padded = F.pad(image, [1, 1, 1, 1], mode="reflect")
    translated = [tta_logits(net, crop, "flip") for crop in (padded[:, :, :-2, :-2], padded[:, :, 2:, 2:])]
    return centered / 2 + (translated[0] + translated[1]) / 4
