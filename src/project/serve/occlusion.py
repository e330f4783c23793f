"""Occlusion maps: the drop in the log odds of a class or label when parts of an image are covered. Without torch.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013. Needs only the model's probabilities.
"""

import base64
import io
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from project.images import Pixels, content_box, visible_part
from project.interface import ImageInput

GRID = 7  # windows per side; each spans about a quarter of the side and overlaps its neighbor by half
NUM_WINDOWS = GRID**2
COLORMAP = np.array([(44, 12, 92), (120, 28, 109), (193, 58, 80), (243, 120, 25), (252, 206, 80)], np.float64)
"""RGB, from low to high; lightness increases evenly, so that the map can be read without color vision."""


def occlude(image: Pixels, original: tuple[int, int], inputs: ImageInput) -> list[Pixels]:
    """Return one copy of an image per window, covered there by the mean color of the training images.

    Args:
        image: The fitted image, (C, height, width).
        original: Height and width of the image before it was fitted; padding is not covered.
        inputs: Description of the input.
    """
    content = content_box(*original, inputs.size, inputs.fit)
    sides = [max(1, round(side / 4)) for side in (content.height, content.width)]
    tops, lefts = (
        (first + np.linspace(0, length - side, GRID).round().astype(int)).tolist()
        for first, length, side in zip((content.top, content.left), content[2:], sides, strict=True)
    )
    low, high = inputs.value_range
    color = low + np.array(inputs.mean) * (high - low)
    color = color if image.dtype.kind == "f" else color.round()
    occluded = np.repeat(image[None], NUM_WINDOWS, 0)
    for copy, (top, left) in zip(occluded, product(tops, lefts), strict=True):
        copy[:, top : top + sides[0], left : left + sides[1]] = color[:, None, None]
    return list(occluded)


def overlay(pixels: Pixels, inputs: ImageInput, drop: NDArray[np.float64]) -> str:
    """Return the visible part of an image, (H, W, C), in gray under the heat map, as a PNG data URI."""
    height, width, _ = pixels.shape
    part = visible_part(height, width, inputs.size, inputs.fit).of(pixels.transpose(2, 0, 1))
    image = inputs.render(part if inputs.is_8bit else inputs.scale(part.astype(np.float32)))
    scale = min(max(max(image.size), 256), 512) / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    gray = np.asarray(image.resize(size, Image.Resampling.BICUBIC).convert("L"), np.float64)[..., None]
    # Drops below 0.25 never reach full color, so that a map without a clear maximum looks weak.
    strength = (drop.reshape(GRID, GRID) / max(float(drop.max()), 0.25)).clip(0, 1).astype(np.float32)
    # The centers of the windows are at 1/8, 2/8, ... 7/8 of the side; beyond them the map is padded with its edge.
    padded, box = Image.fromarray(np.pad(strength, 1, "edge")), (0.5, 0.5, GRID + 1.5, GRID + 1.5)
    heat = np.asarray(padded.resize(size, Image.Resampling.BICUBIC, box)).clip(0, 1)
    color = np.stack([np.interp(heat, np.linspace(0, 1, len(COLORMAP)), channel) for channel in COLORMAP.T], -1)
    opacity = 0.75 * heat[..., None] ** 0.75
    stream = io.BytesIO()
    blended = Image.fromarray((gray * (1 - opacity) + color * opacity).round().astype(np.uint8))
    blended.save(stream, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
