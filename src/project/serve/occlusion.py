"""Occlusion maps: the drop in the log odds of a class when parts of the image are covered. Without torch.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013. Needs only the model's probabilities.
"""

import base64
import io
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from project.deploy.load import Probabilities
from project.images import Pixels, center_crop

GRID = 7  # windows per side; each spans about a quarter of the side and overlaps its neighbor by half
NUM_WINDOWS = GRID**2
COLORMAP = np.array([(44, 12, 92), (120, 28, 109), (193, 58, 80), (243, 120, 25), (252, 206, 80)], np.float64)
"""RGB, from low to high; lightness increases evenly, so that the map can be read without color vision."""


def occlude(image: Pixels, color: Sequence[float]) -> list[Pixels]:
    """Return one copy of an image, uint8 (3, size, size), per window, covered there by a color, RGB in [0, 1]."""
    size = image.shape[1]
    side = max(1, round(size / 4))
    starts = np.linspace(0, size - side, GRID).round().astype(int).tolist()
    occluded = np.repeat(image[None], NUM_WINDOWS, 0)
    for copy, (top, left) in zip(occluded, product(starts, starts), strict=True):
        copy[:, top : top + side, left : left + side] = (np.array(color) * 255).round()[:, None, None]
    return list(occluded)


def log_odds_drop(label: int, original: Probabilities, occluded: Probabilities) -> NDArray[np.float64]:
    """Return the drop in the log odds of a class for each window, (7, 7).

    Log odds rather than probabilities, which hardly change when they are close to one.

    Args:
        label: The class.
        original: Probabilities of the image, float32 (classes,).
        occluded: Probabilities of the copies returned by `occlude`, float32 (49, classes).
    """
    rows = np.concatenate([original[None], occluded]).astype(np.float64)
    others = np.delete(rows, label, 1).sum(1)  # more precise than 1 - p
    odds = np.log(rows[:, label].clip(1e-30) / others.clip(1e-30))
    return np.asarray((odds[0] - odds[1:]).reshape(GRID, GRID))


def overlay(pixels: Pixels, drop: NDArray[np.float64]) -> str:
    """Return the centered square of an image, uint8 (H, W, 3), in gray under the heat map, as a PNG data URI."""
    square = Image.fromarray(np.ascontiguousarray(center_crop(pixels)))
    side = min(max(square.width, 256), 512)
    gray = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC).convert("L"), np.float64)[..., None]
    # Drops below 0.25 never reach full color, so that a map without a clear maximum looks weak.
    strength = (drop / max(float(drop.max()), 0.25)).clip(0, 1).astype(np.float32)
    # The centers of the windows are at 1/8, 2/8, ... 7/8 of the side; beyond them the map is padded with its edge.
    padded, box = Image.fromarray(np.pad(strength, 1, "edge")), (0.5, 0.5, GRID + 1.5, GRID + 1.5)
    heat = np.asarray(padded.resize((side, side), Image.Resampling.BICUBIC, box)).clip(0, 1)
    color = np.stack([np.interp(heat, np.linspace(0, 1, len(COLORMAP)), channel) for channel in COLORMAP.T], -1)
    opacity = 0.75 * heat[..., None] ** 0.75
    stream = io.BytesIO()
    blended = Image.fromarray((gray * (1 - opacity) + color * opacity).round().astype(np.uint8))
    blended.save(stream, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
