"""From raw images to what the network sees: normalisation, and the views of test-time augmentation."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.interface import ImageInput

Views = Literal["one", "mirror", "mirror_shift"]


class Normalize(nn.Module):
    """Subtract the images' mean and divide by their standard deviation, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: ImageInput) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(inputs.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(inputs.std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """uint8 in [0, 255] or float in [0, 1], (N, C, H, W), to normalised floats."""
        x = image.to(self.mean.dtype)
        if not image.is_floating_point():
            x = x / 255
        return (x - self.mean) / self.std


def mean_logits(net: Callable[[Tensor], Tensor], image: Tensor, views: Views) -> Tensor:
    """Logits (N, classes) of float images (N, C, H, W), averaged over views of each.

    `mirror` sees the image and its mirror image, for twice the time; `mirror_shift` also both of them moved by a pixel
    to either corner, at half the weight in all, for six times the time. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a
    Single GPU, 2024 (arXiv 2404.00498, section 3.5).
    """
    if views == "one":
        return net(image)
    # A copy, as a net that CUDA graphs run (`--model.compile`) gives its next answer in the same memory.
    straight = (net(image).clone() + net(image.flip(-1))) / 2
    if views == "mirror":
        return straight
    padded = F.pad(image, [1, 1, 1, 1], mode="reflect")
    moved = [mean_logits(net, part, "mirror") for part in (padded[:, :, :-2, :-2], padded[:, :, 2:, 2:])]
    return straight / 2 + (moved[0] + moved[1]) / 4
