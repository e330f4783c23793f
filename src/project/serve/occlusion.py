"""Where in a picture the evidence for a class lies: what its log odds lose when a part is covered. Without torch.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013. It asks for probabilities and no more.
"""

import base64
import io
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from project.deploy.crop import center_crop
from project.deploy.load import Probabilities
from project.images import Pixels

PLACES = 7  # windows each way; each covers about a quarter of the side, and half of its neighbor
COVERED = PLACES**2
RAMP = np.array([(44, 12, 92), (120, 28, 109), (193, 58, 80), (243, 120, 25), (252, 206, 80)], np.float64)
"""RGB, from weak to strong; its lightness grows evenly, so that it can be read without colors."""


def cover(square: Pixels, color: Sequence[float]) -> list[Pixels]:
    """Return the picture, uint8 (3, size, size), covered in turn at each window by a color, RGB in [0, 1]."""
    size = square.shape[1]
    side = max(1, round(size / 4))
    starts = np.linspace(0, size - side, PLACES).round().astype(int).tolist()
    covered = np.repeat(square[None], COVERED, 0)
    for picture, (top, left) in zip(covered, product(starts, starts), strict=True):
        picture[:, top : top + side, left : left + side] = (np.array(color) * 255).round()[:, None, None]
    return list(covered)


def losses(best: int, before: Probabilities, after: Probabilities) -> NDArray[np.float64]:
    """Return what covering takes from the log odds of the class `best`: (7, 7), a window each.

    Log odds are what a net adds up; a probability near one hardly moves, whatever is covered. The answers before are
    float32 (classes,), and those to the pictures of `cover` float32 (49, classes).
    """
    rows = np.concatenate([before[None], after]).astype(np.float64)
    others = np.delete(rows, best, 1).sum(1)  # exact where 1 - p would not be
    odds = np.log(rows[:, best].clip(1e-30) / others.clip(1e-30))
    return np.asarray((odds[0] - odds[1:]).reshape(PLACES, PLACES))


def overlay(pixels: Pixels, loss: NDArray[np.float64]) -> str:
    """Return the square in the middle of uint8 (H, W, 3), gray, with losses above zero in color; a PNG as data URI."""
    square = Image.fromarray(np.ascontiguousarray(center_crop(pixels)))
    side = min(max(square.width, 256), 512)
    gray = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC).convert("L"), np.float64)[..., None]
    # No less than a loss of 0.25 is drawn in full color, so that a map of next to nothing looks like that.
    strength = (loss / max(float(loss.max()), 0.25)).clip(0, 1).astype(np.float32)
    # The middles of the windows lie at 1/8, 2/8, ... 7/8 of the side; beyond, the map goes on as it is there.
    wide, box = Image.fromarray(np.pad(strength, 1, "edge")), (0.5, 0.5, PLACES + 1.5, PLACES + 1.5)
    fine = np.asarray(wide.resize((side, side), Image.Resampling.BICUBIC, box)).clip(0, 1)
    heat = np.stack([np.interp(fine, np.linspace(0, 1, len(RAMP)), channel) for channel in RAMP.T], -1)
    opacity = 0.75 * fine[..., None] ** 0.75
    stream = io.BytesIO()
    drawn = Image.fromarray((gray * (1 - opacity) + heat * opacity).round().astype(np.uint8))
    drawn.save(stream, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
