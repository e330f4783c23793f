"""Networks and a loss that private training must reject, and a channels-last network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.interface import ImageInput


class Centered(nn.Module):
    """Subtracts the batch mean in a custom layer."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * inputs.height**2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer((x - x.mean(0)).flatten(1))


class Remembering(nn.Module):
    """Stores a running mean of the images in a buffer."""

    seen: Tensor

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * inputs.height**2, num_classes)
        self.register_buffer("seen", torch.zeros(3 * inputs.height**2))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * x.flatten(1).detach().mean(0)
        return self.layer(x.flatten(1))


class ChannelsLast(nn.Module):
    """Permutes to channels last between its convolutions."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.second(x.relu()).relu().mean((2, 3)))


class Relative(nn.Module):
    """Weights each loss by its softmax over the batch."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs, target, reduction="none")
        return (losses * losses.softmax(0)).sum()
