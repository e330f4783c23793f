"""Pictures of maps."""

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from project.machine import font_file
from project.output import printable

SIDE = 256  # images are enlarged to about this many pixels
MARGIN, LINE = 12, 26


def enlarge(image: Tensor, side: int = SIDE) -> Image.Image:
    """Return a uint8 image (3, H, W) as a picture of about `side` pixels, by a whole factor; larger ones stay as is."""
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    factor = max(1, round(side / picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def overlay(image: Tensor, attribution: Tensor, side: int = SIDE) -> Image.Image:
    """Return an image with the evidence for a class laid over it, in colors from violet by orange to yellow.

    Args:
        image: uint8 (3, H, W) in [0, 255].
        attribution: Float (H, W); the strongest is shown brightest, and what is not above zero not at all.
        side: Smaller images are enlarged to about this many pixels.
    """
    import matplotlib

    picture = enlarge(image, side)
    strength = attribution.detach().float().cpu().clamp(min=0)
    # Integrated gradients differ from pixel to pixel, more finely than an eye can see on a photograph, and a single
    # pixel that stands out must not make all others invisible.
    grain = attribution.shape[-1] // 64
    strength = F.avg_pool2d(strength[None, None], 2 * grain + 1, 1, grain, count_include_pad=False)[0, 0]
    strength = (strength / strength.flatten().quantile(0.99).clamp(min=1e-12)).clamp(max=1)
    fine = F.interpolate(strength[None, None], picture.size[::-1], mode="bilinear")[0, 0].numpy()
    heat = np.asarray(matplotlib.colormaps["inferno"](0.2 + 0.75 * fine))[..., :3] * 255
    gray = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    opacity = 0.15 + 0.6 * fine[..., None]
    return Image.fromarray((gray * (1 - opacity) + heat * opacity).round().astype(np.uint8))


def image_grid(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Return a sheet of titled pictures of one size, in rows."""
    width, height = rows[0][0][1].size
    columns = max(map(len, rows))
    across, down = width + MARGIN, LINE + height + MARGIN
    sheet = Image.new("RGB", (MARGIN + columns * across, MARGIN + len(rows) * down), "white")
    draw = ImageDraw.Draw(sheet)
    for row, tiles in enumerate(rows):
        for column, (title, picture) in enumerate(tiles):
            left, top = MARGIN + column * across, MARGIN + row * down
            title = printable(title)
            font = ImageFont.truetype(font_file(title), 16)
            fits = max(7.0, min(16.0, 16 * width / max(1.0, font.getlength(title))))  # no wider than the picture
            draw.text((left, top), title, "black", font.font_variant(size=fits))
            sheet.paste(picture, (left, top + LINE))
    return sheet
