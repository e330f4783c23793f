"""The whole path from decoded pixels to probabilities, as one module that can be exported."""

import torch
from torch import Tensor, nn

from project.modules import Classifier


class RawClassifier(nn.Module):
    """Pictures as they were decoded, uint8 RGB (N, 3, H, W) of any H and W, to probabilities, float32 (N, classes).

    What brings them to size is that of `project.datamodules.images.decode`, to the last bit, in operations that every
    format of exported models knows: the antialiased resize of ONNX is up to 15 levels off.
    """

    def __init__(self, model: Classifier, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, image: Tensor) -> Tensor:
        """Cut the largest square out of the center, bring it to size, classify it."""
        return self.model.predictions(square(image, self.size))


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
    return ((down @ columns) / unit + 0.5).floor().to(torch.uint8)


def _number(value: int) -> Tensor:
    return torch.full((), value, dtype=torch.float64)  # a tensor, so that an exported graph computes it


def _weights(length: int, side: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return what each of `length` pixels, `side` of them in the square, adds to each of `size`; and the unit of it."""
    place = torch.arange(length, dtype=torch.float64) - ((_number(length) - side) / 2).floor()
    scale = side / size
    reach = scale.clamp(min=1.0)
    center = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    first = (center - reach + 0.5).floor().clamp(min=0)
    end = torch.minimum((center + reach + 0.5).floor(), side)
    weight = (1 - ((place - center + 0.5) / reach).abs()).clamp(min=0) * ((place >= first) & (place < end))
    weight = weight / weight.sum(1, keepdim=True)
    # The largest power of two by which every weight still fits into 16 bits.
    bits = (weight.max() * 2.0 ** torch.arange(1, 23, dtype=torch.float64) + 0.5 < 2**15).sum()
    unit = 2.0 ** bits.double()
    return (weight * unit + 0.5).floor(), unit
