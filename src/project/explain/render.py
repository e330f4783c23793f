"""Overlays of attribution maps, and grids of images."""

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from project.images.render import to_image
from project.machine import font_file
from project.output import printable

SIDE = 256  # approximate length of the longer side of enlarged images in pixels
MARGIN, LINE = 12, 26


def enlarge(image: Tensor, side: int = SIDE) -> Image.Image:
    """Return an image (C, H, W), uint8 or float in [0, 1], upscaled by an integer factor to about `side` pixels."""
    pil_image = to_image(image.cpu().numpy())
    factor = max(1, round(side / max(pil_image.size)))
    return pil_image.resize((pil_image.width * factor, pil_image.height * factor), Image.Resampling.BICUBIC)


def overlay(
    image: Tensor, attribution: Tensor, side: int = SIDE, mask: Tensor | None = None, signed: bool = False
) -> Image.Image:
    """Return a grayscale image with an attribution map overlaid, in colors from violet through orange to yellow.

    Args:
        image: uint8 in [0, 255] or float in [0, 1], (C, H, W).
        attribution: Float (H, W); the largest values are brightest, values of zero or less are not shown by default.
        side: Smaller images are enlarged to about this many pixels.
        mask: Pixels that are not padding, bool (1, H, W); the others are not colored.
        signed: Whether to show the magnitude, so that negative values are as bright as positive ones.
    """
    import matplotlib

    enlarged = enlarge(image, side)
    attribution = attribution.detach().float().cpu()
    strength = attribution.abs() if signed else attribution.clamp(min=0)
    # Integrated gradients vary from pixel to pixel, which is invisible on large images: smooth them. The 0.99 quantile
    # prevents a single outlier from hiding all other values.
    radius = min(attribution.shape) // 64
    strength = F.avg_pool2d(strength[None, None], 2 * radius + 1, 1, radius, count_include_pad=False)[0, 0]
    strength = (strength / strength.flatten().quantile(0.99).clamp(min=1e-12)).clamp(max=1)
    resized = F.interpolate(strength[None, None], enlarged.size[::-1], mode="bilinear")[0, 0].numpy()
    heat = np.asarray(matplotlib.colormaps["inferno"](0.2 + 0.75 * resized))[..., :3] * 255
    gray = np.asarray(enlarged.convert("L"), dtype=np.float32)[..., None]
    opacity = 0.15 + 0.6 * resized[..., None]
    if mask is not None:
        opacity = opacity * F.interpolate(mask[None].float().cpu(), enlarged.size[::-1])[0, 0, ..., None].numpy()
    return Image.fromarray((gray * (1 - opacity) + heat * opacity).round().astype(np.uint8))


def image_grid(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Return a grid of titled images of equal size."""
    width, height = rows[0][0][1].size
    columns = max(map(len, rows))
    across, down = width + MARGIN, LINE + height + MARGIN
    grid = Image.new("RGB", (MARGIN + columns * across, MARGIN + len(rows) * down), "white")
    draw = ImageDraw.Draw(grid)
    for row, tiles in enumerate(rows):
        for column, (title, tile) in enumerate(tiles):
            left, top = MARGIN + column * across, MARGIN + row * down
            title = printable(title)
            font = ImageFont.truetype(font_file(title), 16)
            size = max(7.0, min(16.0, 16 * width / max(1.0, font.getlength(title))))  # fit the title to the tile
            if (length := font.font_variant(size=size).getlength(title)) > width + MARGIN:
                title = title[: max(1, int(len(title) * width / length) - 1)] + "…"
            draw.text((left, top), title, "black", font.font_variant(size=size))
            grid.paste(tile, (left, top + LINE))
    return grid
