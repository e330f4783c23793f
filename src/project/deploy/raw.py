"""Preprocessing, network and postprocessing as one exportable module, from raw inputs to predictions."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from project import interface
from project.interface import ImageInput
from project.modules import Classifier
from project.runs.spec import builder


class RawClassifier(nn.Module):
    """Map raw inputs, see `Input.graph`, to probabilities or values.

    The result is float32 (N, outputs), values in the units of the data.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model, self.inputs = model, model.data_description.input
        self.front = builder(self.inputs.graph.front)(self.inputs)

    @override
    def forward(self, raw: Tensor) -> Tensor:
        return self.model.predictions(self.inputs.prepare(self.front(raw)))


class Fit(nn.Module):
    """Fit decoded images, (N, C, H, W) of any H and W in the files' dtype, to the size of the network.

    For integers, images are fitted bitwise as by `project.images.fit_pixels`, in operations that every export format
    supports: the antialiased `Resize` of ONNX differs by up to 15 gray levels.
    """

    def __init__(self, inputs: ImageInput) -> None:
        super().__init__()
        self.inputs = inputs

    @override
    def forward(self, image: Tensor) -> Tensor:
        return exportable_fit(image, self.inputs.size, self.inputs.fit)


def exportable_fit(image: Tensor, size: tuple[int, int], fit: interface.Fit) -> Tensor:
    """Fit images, uint8, uint16 or float32 (N, C, H, W), to (N, C, height, width), as `project.images.fit_pixels`.

    Images are resized horizontally, then vertically. For integers, weights have fixed point, as in torch, and each pass
    is rounded; sums of such products are exact in float64, in any order.
    """
    height, width = _scalar(image.shape[2]), _scalar(image.shape[3])
    part, content = [height, width], [_scalar(size[0]), _scalar(size[1])]
    is_wide = width * size[0] > height * size[1]
    if fit == "crop":
        part[1] = torch.where(is_wide, (height * size[1] / size[0]).floor().clamp(min=1), width)
        part[0] = torch.where(is_wide, height, (width * size[0] / size[1]).floor().clamp(min=1))
    elif fit == "pad":
        rows = ((2 * height * size[1] + width) / (2 * width)).floor().clamp(min=1)
        columns = ((2 * width * size[0] + height) / (2 * height)).floor().clamp(min=1)
        content = [torch.where(is_wide, rows, content[0]), torch.where(is_wide, content[1], columns)]
    quantized = not image.is_floating_point()
    horizontal, unit = _weights(image.shape[3], part[1], size[1], content[1], quantized)
    columns = image.double() @ horizontal.T / unit
    if quantized:
        columns = (columns + 0.5).floor()
    vertical, unit = _weights(image.shape[2], part[0], size[0], content[0], quantized)
    result = vertical @ columns / unit
    if quantized:
        return (result + 0.5).floor().to(image.dtype)
    if fit == "pad":
        shown = _is_shown(size[0], content[0]) & _is_shown(size[1], content[1]).T
        result = torch.where(shown, result, image.amin((1, 2, 3), keepdim=True).double())
    return result.to(image.dtype)


def _scalar(value: int) -> Tensor:
    return torch.full((), value, dtype=torch.float64)  # a tensor, so that the exported graph computes with it


def _target(size: int, content: Tensor) -> Tensor:
    """Return the position of each output pixel in the central `content` pixels, (size, 1)."""
    return torch.arange(size, dtype=torch.float64)[:, None] - ((_scalar(size) - content) / 2).floor()


def _is_shown(size: int, content: Tensor) -> Tensor:
    target = _target(size, content)
    return (target >= 0) & (target < content)


def _weights(length: int, part: Tensor, size: int, content: Tensor, quantized: bool) -> tuple[Tensor, Tensor]:
    """Return the weight of each input pixel in each output pixel, (size, length), and their common divisor.

    The central `part` pixels of the input are resized to the central `content` pixels of the output; all other weights
    are 0. Quantized weights are integers.
    """
    position = torch.arange(length, dtype=torch.float64) - ((_scalar(length) - part) / 2).floor()
    scale = part / content
    radius = scale.clamp(min=1.0)
    center = (_target(size, content) + 0.5) * scale
    first = (center - radius + 0.5).floor().clamp(min=0)
    end = torch.minimum((center + radius + 0.5).floor(), part)
    shown = _is_shown(size, content)
    inside = (position >= first) & (position < end) & shown
    weight = (1 - ((position - center + 0.5) / radius).abs()).clamp(min=0) * inside
    weight = weight / weight.sum(1, keepdim=True).where(shown, _scalar(1))
    if not quantized:
        return weight, _scalar(1)
    # The largest power of two for which every weight fits into 16 bits, as in torch.
    bits = (weight.max() * 2.0 ** torch.arange(1, 23, dtype=torch.float64) + 0.5 < 2**15).sum()
    unit = 2.0 ** bits.double()
    return (weight * unit + 0.5).floor(), unit
