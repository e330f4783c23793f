"""Where in a picture the evidence for a class lies: what its probability loses when a part is covered. Without torch.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013; it works for whatever gives probabilities.
"""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from project.deploy.load import Probabilities
from project.deploy.square import central_square
from project.images import Pixels

PLACES = 7
"""Windows each way; each covers about a quarter of the side, and half of its neighbour."""
COVERED = PLACES**2
LEAST = 0.05
"""A loss of probability that is drawn in full colour at least, so that a map of next to nothing looks like that."""
SMALLEST, LARGEST = 256, 512
"""Height and width in pixels of the picture that is drawn on."""
RAMP = np.array([(44, 12, 92), (120, 28, 109), (193, 58, 80), (243, 120, 25), (252, 206, 80)], np.float64)
"""RGB, from weak to strong; its lightness grows evenly, so that it can be read without colours."""


def _windows(size: int) -> list[tuple[slice, slice]]:
    side = max(1, round(size / 4))
    starts = np.linspace(0, size - side, PLACES).round().astype(int).tolist()
    return [(slice(top, top + side), slice(left, left + side)) for top in starts for left in starts]


def cover(square: Pixels, colour: list[float]) -> list[Pixels]:
    """The picture, uint8 (3, size, size), once for each window, covered there by a colour, RGB in [0, 1]."""
    fill = (np.array(colour) * 255).round().astype(np.uint8)[:, None, None]
    covered = np.repeat(square[None], COVERED, 0)
    for picture, (rows, columns) in zip(covered, _windows(square.shape[1]), strict=True):
        picture[:, rows, columns] = fill
    return list(covered)


def losses(size: int, before: float, after: Probabilities) -> NDArray[np.float64]:
    """What covering each place takes from a probability: float64 (size, size), the mean over the windows upon it.

    Args:
        size: Height and width of the picture.
        before: The probability of the class for the whole picture.
        after: The same for each picture of `cover`, float32 (windows,).
    """
    total, times = np.zeros((size, size)), np.zeros((size, size))
    for probability, window in zip(after.tolist(), _windows(size), strict=True):
        total[window] += before - probability
        times[window] += 1
    return total / times.clip(min=1)


def overlay(pixels: Pixels, loss: NDArray[np.float64]) -> str:
    """The square in the middle of uint8 (H, W, 3), grey, with losses above zero in colour; a PNG as a data URI."""
    square = Image.fromarray(np.ascontiguousarray(central_square(pixels)))
    side = min(max(square.width, SMALLEST), LARGEST)
    grey = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC).convert("L"), np.float64)[..., None]
    strength = (loss / max(float(loss.max()), LEAST)).clip(0, 1).astype(np.float32)
    fine = np.asarray(Image.fromarray(strength).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    heat = np.stack([np.interp(fine, stops, channel) for channel in RAMP.T], -1)
    opacity = 0.75 * fine[..., None] ** 0.75
    stream = io.BytesIO()
    Image.fromarray((grey * (1 - opacity) + heat * opacity).round().astype(np.uint8)).save(stream, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
