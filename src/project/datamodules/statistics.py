"""Channel statistics."""

import numpy as np
import torch

from project.datamodules.loader import Images
from project.datamodules.sampler import Request

SAMPLE = 2000
"""Images that the statistics are taken from: the error of a channel mean is then well below one grey level."""


def channel_statistics(images: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each RGB channel, in [0, 1], over an even sample."""
    sample = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64)
    moments = []
    for positions in np.array_split(sample, -(-len(sample) // 50)):
        pixels = images[Request(0, positions.tolist())].image.double() / 255
        moments.append(torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))]))
    count = len(sample) * images.image_size**2
    mean, square = torch.stack(moments).sum(0) / count
    std = (square - mean**2).clamp(min=0).sqrt().clamp(min=1 / 255)  # a constant channel must not divide by zero
    return [round(x, 6) for x in mean.tolist()], [round(x, 6) for x in std.tolist()]
