"""The whole path from decoded pixels to probabilities, as one module that can be exported."""

from typing import Protocol

import torch
from torch import Tensor, nn


class GivesProbabilities(Protocol):
    """What a classifier must be able to do; see `project.modules.Classifier`."""

    def probabilities(self, image: Tensor) -> Tensor:
        """Square images, uint8 (N, 3, size, size), to float32 (N, classes)."""


class RawClassifier(nn.Module):
    """Pictures as they were decoded, uint8 RGB (N, 3, H, W) of any H and W, to probabilities, float32 (N, classes).

    What brings them to size is `project.datamodules.decode.to_square`, to the last bit, in operations that every
    format of exported models knows: the antialiased resize of ONNX is up to 15 levels off.

    Args:
        model: A classifier in evaluation mode.
        size: Height and width of the images that it sees, in pixels.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, image: Tensor) -> Tensor:
        """Cut the largest square out of the centre, bring it to size, classify it."""
        model: GivesProbabilities = self.model  # type: ignore[assignment]
        return model.probabilities(square(image, self.size))


def square(image: Tensor, size: int) -> Tensor:
    """What `to_square` makes of each image: uint8 (N, 3, H, W) to uint8 (N, 3, size, size).

    Torch's resize of bytes goes across and then down, each with weights in whole multiples of a power of two, and
    rounds to bytes in between. Sums of such products are exact in float64, in whatever order.
    """
    height, width = image.shape[2:]
    side = torch.minimum(_number(height), _number(width))
    across, unit = _weights(width, side, size)
    columns = ((image.double() @ across.T) / unit + 0.5).floor()
    down, unit = _weights(height, side, size)
    rows = ((down @ columns) / unit + 0.5).floor()
    return rows.to(torch.uint8)


def _number(value: int) -> Tensor:
    return torch.full((), value, dtype=torch.float64)  # a tensor, so that an exported graph computes it


def _weights(length: int, side: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What each pixel of a line adds to each one of the result, float64 (size, length), and the unit it is counted in.

    Args:
        length: Pixels of the line.
        side: Pixels in its middle that are to be resized.
        size: Pixels of the result.
    """
    place = torch.arange(length, dtype=torch.float64) - ((_number(length) - side) / 2).floor()
    scale = side / size
    reach = scale.clamp(min=1.0)
    centre = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    first = (centre - reach + 0.5).floor().clamp(min=0)
    end = torch.minimum((centre + reach + 0.5).floor(), side)
    weight = (1 - ((place - centre + 0.5) / reach).abs()).clamp(min=0) * ((place >= first) & (place < end))
    weight = weight / weight.sum(1, keepdim=True)
    # The largest power of two by which every weight still fits into 16 bits.
    bits = (weight.max() * 2.0 ** torch.arange(1, 23, dtype=torch.float64) + 0.5 < 2**15).sum()
    unit = 2.0 ** bits.double()
    return (weight * unit + 0.5).floor(), unit
