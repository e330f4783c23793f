"""Where in a picture the evidence for a class lies: what its log odds lose when a part is covered. Without torch.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013. It asks for probabilities and no more.
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
LEAST = 0.25
"""A loss that is drawn in full colour at least, so that a map of next to nothing looks like that."""
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


def losses(best: int, before: Probabilities, after: Probabilities) -> NDArray[np.float64]:
    """What covering takes from the log odds of a class: float64 (7, 7), a window each.

    Log odds are what a net adds up; a probability near one hardly moves, whatever is covered.

    Args:
        best: The class.
        before: The answer to the whole picture, float32 (classes,).
        after: The answers to the pictures of `cover`, float32 (49, classes).
    """
    return (_log_odds(before, best) - _log_odds(after, best)).reshape(PLACES, PLACES)


def _log_odds(rows: Probabilities, best: int) -> NDArray[np.float64]:
    others = np.delete(rows.astype(np.float64), best, -1).sum(-1)  # exact where 1 - p would not be
    found: NDArray[np.float64] = np.log(rows[..., best].astype(np.float64).clip(1e-30) / others.clip(1e-30))
    return found


def overlay(pixels: Pixels, loss: NDArray[np.float64]) -> str:
    """The square in the middle of uint8 (H, W, 3), grey, with losses above zero in colour; a PNG as a data URI.

    Args:
        pixels: The picture.
        loss: What `losses` found.
    """
    square = Image.fromarray(np.ascontiguousarray(central_square(pixels)))
    side = min(max(square.width, SMALLEST), LARGEST)
    grey = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC).convert("L"), np.float64)[..., None]
    strength = (loss / max(float(loss.max()), LEAST)).clip(0, 1).astype(np.float32)
    # The middles of the windows lie at 1/8, 2/8, ... 7/8 of the side; beyond, the map goes on as it is there.
    wide = Image.fromarray(np.pad(strength, 1, "edge"))
    edge = PLACES + 1.5
    fine = np.asarray(wide.resize((side, side), Image.Resampling.BICUBIC, (0.5, 0.5, edge, edge))).clip(0, 1)
    stops = np.linspace(0, 1, len(RAMP))
    heat = np.stack([np.interp(fine, stops, channel) for channel in RAMP.T], -1)
    opacity = 0.75 * fine[..., None] ** 0.75
    stream = io.BytesIO()
    Image.fromarray((grey * (1 - opacity) + heat * opacity).round().astype(np.uint8)).save(
        stream, "PNG", compress_level=3
    )
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
