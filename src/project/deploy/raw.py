"""Preprocessing, network and postprocessing as one exportable module, from decoded pixels to probabilities."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from project.modules import Classifier


class RawClassifier(nn.Module):
    """Map decoded images, uint8 RGB (N, 3, H, W) of any H and W, to probabilities, float32 (N, classes).

    The crop and resize are bitwise equal to those of `project.datamodules.images.decode`, written in operations that
    every export format supports: the antialiased `Resize` of ONNX differs by up to 15 gray levels.
    """

    def __init__(self, model: Classifier, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    @override
    def forward(self, image: Tensor) -> Tensor:
        return self.model.predictions(exportable_center_crop_resize(image, self.size))


def exportable_center_crop_resize(image: Tensor, size: int) -> Tensor:
    """Crop the largest centered square of each image and resize it: uint8 (N, 3, H, W) to uint8 (N, 3, size, size).

    Equivalent to `center_crop_resize` of `project.datamodules.images.decode`. For uint8, torch resizes horizontally,
    then vertically, with fixed-point weights, and rounds to uint8 after each pass. Sums of such products are exact in
    float64, in any order.
    """
    height, width = image.shape[2:]
    side = torch.minimum(_scalar(height), _scalar(width))
    horizontal, unit = _weights(width, side, size)
    columns = ((image.double() @ horizontal.T) / unit + 0.5).floor()
    vertical, unit = _weights(height, side, size)
    return ((vertical @ columns) / unit + 0.5).floor().to(torch.uint8)


def _scalar(value: int) -> Tensor:
    return torch.full((), value, dtype=torch.float64)  # a tensor, so that the exported graph computes with it


def _weights(length: int, side: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the weight of each input pixel in each output pixel, integers (size, length), and their common divisor.

    Pixels outside the centered square of `side` pixels have weight 0.
    """
    position = torch.arange(length, dtype=torch.float64) - ((_scalar(length) - side) / 2).floor()
    scale = side / size
    radius = scale.clamp(min=1.0)
    center = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    first = (center - radius + 0.5).floor().clamp(min=0)
    end = torch.minimum((center + radius + 0.5).floor(), side)
    weight = (1 - ((position - center + 0.5) / radius).abs()).clamp(min=0) * ((position >= first) & (position < end))
    weight = weight / weight.sum(1, keepdim=True)
    # The largest power of two for which every weight fits into 16 bits, as in torch.
    bits = (weight.max() * 2.0 ** torch.arange(1, 23, dtype=torch.float64) + 0.5 < 2**15).sum()
    unit = 2.0 ** bits.double()
    return (weight * unit + 0.5).floor(), unit
