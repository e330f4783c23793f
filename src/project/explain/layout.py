"""Layout of feature maps: which axes of a layer's output are height, width and channels."""

from collections.abc import Callable

from torch import Tensor

Size = tuple[int, int]


def is_spatial(height: int, width: int, size: Size) -> bool:
    """Return True if two axes can be height and width of feature maps of an image or feature map of a given size."""
    smaller = 1 <= height <= size[0] and 1 <= width <= size[1]
    return smaller and abs(height * size[1] - width * size[0]) < max(size)


def to_nchw(output: Tensor, batch_size: int, size: Size) -> Callable[[Tensor], Tensor] | None:
    """Return a function that converts an output or its gradient to (N, C, h, w), of at most the given size.

    Supports NCHW, NHWC and tokens (N, T, C), non-spatial tokens first. Returns None for other layouts, and for a single
    position.
    """
    shape = output.shape
    if len(shape) == 4 and shape[0] == batch_size:
        if shape[2] * shape[3] > 1 and is_spatial(shape[2], shape[3], size):
            return lambda x: x
        if shape[1] * shape[2] > 1 and is_spatial(shape[1], shape[2], size):
            return lambda x: x.permute(0, 3, 1, 2)
    positions = size[0] * size[1]
    if len(shape) == 3 and shape[0] == batch_size and positions > 1 and 0 <= (prefix := shape[1] - positions) <= 8:
        return lambda x: x[:, prefix:].transpose(1, 2).unflatten(2, size)
    return None


def channel_axis(output: Tensor, size: Size) -> int:
    """Return the axis of the channels: 1 if the output is NCHW, else the last one.

    Args:
        output: Output of a layer.
        size: Height and width of the images.
    """
    return 1 if output.ndim == 4 and is_spatial(output.shape[2], output.shape[3], size) else output.ndim - 1
