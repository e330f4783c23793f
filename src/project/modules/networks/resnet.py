"""ResNet for small images."""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from project.interface import ImageInput

Norm = Literal["batch", "group"]


class ResNet(nn.Module):
    """ResNet for small images: a 3x3 stem and three stages of basic blocks with 16, 32 and 64 channels.

    He et al., Deep Residual Learning for Image Recognition, 2015 (section 4.2), with parameter-free shortcuts: strided
    identity and zero padding of new channels (option A).

    Args:
        num_classes: Number of classes.
        inputs: Number of channels; any image size is supported (32 in the paper).
        depth: Number of layers, 6n + 2: 20, 32, 44, 56 or 110 in the paper.
        width: Number of channels of the first stage (16 in the paper).
        norm: Batch normalization as in the paper, or group normalization, which differentially private training needs
            as it does not mix samples.

    Raises:
        ValueError: If `depth` is not 6n + 2.
    """

    def __init__(
        self, num_classes: int, inputs: ImageInput, depth: int = 20, width: int = 16, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"ResNet.depth must be 6n + 2, e.g. 20, 32 or 56, got {depth}")
        blocks: list[nn.Module] = []
        width_in = width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                outputs, stride = width * 2**stage, 2 if stage and not block else 1
                blocks.append(Block(width_in, outputs, stride, norm))
                width_in = outputs
        stem = nn.Conv2d(inputs.channels, width, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, _norm(norm, width), nn.ReLU(True))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


class Block(nn.Module):
    """Basic block: two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.stride, self.new_channels = stride, outputs - inputs
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), _norm(norm, outputs), nn.ReLU(True)
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), _norm(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], [0, 0, 0, 0, 0, self.new_channels])
        return F.relu(self.second(self.first(x)) + shortcut)


def _norm(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(8, channels), channels)
