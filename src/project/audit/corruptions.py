"""What happens to pictures on their way to a classifier, at five severities each.

After Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019:
the same kinds and strengths, those of CIFAR-10-C for images of up to 64 pixels, of ImageNet-C for larger ones, with
lengths in proportion to the image. Written anew on batches, so that figures are not to be held against published ones.
Each function takes a float batch (N, 3, H, W) in [0, 1], and returns such a one, or one that must still be clipped.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import filter2d, gaussian_blur2d
from kornia.geometry.transform import rotate, translate
from simplejpeg import decode_jpeg, encode_jpeg
from torch import Generator, Tensor

# A function, and its strengths on small and on larger images, by severity.
Corruption = tuple[Callable[[Tensor, Any, Generator], Tensor], tuple[Any, ...], tuple[Any, ...]]


def _uniform(shape: tuple[int, ...], draws: Generator) -> Tensor:
    return torch.rand(shape, generator=draws, device=draws.device)


def _gaussian_noise(x: Tensor, deviation: float, draws: Generator) -> Tensor:
    return x + deviation * torch.randn(x.shape, generator=draws, device=x.device)


def _shot_noise(x: Tensor, photons: float, draws: Generator) -> Tensor:
    return torch.poisson(x * photons, generator=draws) / photons


def _impulse_noise(x: Tensor, share: float, draws: Generator) -> Tensor:
    salt = (_uniform(tuple(x.shape), draws) < 0.5).to(x)
    return torch.where(_uniform(tuple(x.shape), draws) < share, salt, x)


def _gaussian_blur(x: Tensor, deviation: float, draws: Generator) -> Tensor:
    sigma = deviation * x.shape[-1]
    size = 2 * max(1, math.ceil(3 * sigma)) + 1
    return gaussian_blur2d(x, (size, size), (sigma, sigma))


def _defocus_blur(x: Tensor, shape: tuple[float, float], draws: Generator) -> Tensor:
    """A disk of a radius, its edge softened by a deviation in pixels."""
    radius, softness = shape[0] * x.shape[-1], shape[1]
    place = torch.arange(-math.ceil(radius) - 2, math.ceil(radius) + 3, device=x.device)
    disk = (place[:, None] ** 2 + place**2 <= radius**2).to(x)
    kernel = gaussian_blur2d((disk / disk.sum())[None, None], (5, 5), (softness, softness), border_type="constant")
    return filter2d(x, kernel[0], normalized=True)


def _motion_blur(x: Tensor, deviation: float, draws: Generator) -> Tensor:
    """A trail that fades like half a Gaussian, in a direction of each image's own within 45 degrees of level."""
    sigma = deviation * x.shape[-1]
    step = torch.arange(math.ceil(3 * sigma) + 1, device=x.device)
    angle = (_uniform((len(x), 1), draws) - 0.5) * math.pi / 2
    down, right = ((step * part(angle)).round().long() + step[-1] for part in (torch.sin, torch.cos))
    size = 2 * int(step[-1]) + 1
    weight = torch.exp(-(step**2) / (2 * sigma**2)).expand(len(x), -1)
    kernel = torch.zeros(len(x), size * size, device=x.device).scatter_add(1, down * size + right, weight)
    return filter2d(x, kernel.view(-1, size, size), normalized=True)


def _brightness(x: Tensor, more: float, draws: Generator) -> Tensor:
    """Raises the value of HSV."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1)
    return torch.where(value > 0, x * raised / value.clamp(min=1e-6), raised)


def _contrast(x: Tensor, share: float, draws: Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * share + mean


def _fog(x: Tensor, shape: tuple[float, float], draws: Generator) -> Tensor:
    """Clouds of an amount: noise of ever finer grain, each weaker by a factor than the one before."""
    amount, decay = shape
    clouds = torch.zeros_like(x[:, :1])
    for octave in range(1, int(math.log2(x.shape[-1])) + 1):
        grain = _uniform((len(x), 1, 2**octave, 2**octave), draws)
        clouds += F.interpolate(grain, x.shape[-2:], mode="bilinear") / decay**octave
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    most = x.amax((1, 2, 3), keepdim=True)
    return (x + amount * (clouds - low) / (high - low)) * most / (most + amount)


def _pixelate(x: Tensor, share: float, draws: Generator) -> Tensor:
    small = max(1, int(x.shape[-1] * share))
    return F.interpolate(F.interpolate(x, (small, small), mode="area"), x.shape[-2:], mode="nearest")


def _jpeg(x: Tensor, quality: int, draws: Generator) -> Tensor:
    pixels = to_uint8(x).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    read = [decode_jpeg(encode_jpeg(each, quality, "RGB", "420"), "RGB") for each in pixels]
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(x.device) / 255


def _shift(x: Tensor, share: float, draws: Generator) -> Tensor:
    """Moves each image by a share of its side, in a direction of its own; what comes in is mirrored."""
    angle = _uniform((len(x),), draws) * 2 * math.pi
    way = torch.stack([angle.cos(), angle.sin()], 1) * share * x.shape[-1]
    return translate(x, way, padding_mode="reflection")


def _rotation(x: Tensor, degrees: float, draws: Generator) -> Tensor:
    """Turns each image one way or the other."""
    return rotate(x, (_uniform((len(x),), draws) < 0.5).to(x) * 2 * degrees - degrees, padding_mode="reflection")


def _of(side: int, *lengths: Any) -> tuple[Any, ...]:
    """Lengths in pixels as shares of the side."""
    return tuple((x[0] / side, x[1]) if isinstance(x, tuple) else x / side for x in lengths)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (_gaussian_blur, _of(32, 0.4, 0.6, 0.7, 0.8, 1), _of(224, 1, 2, 3, 4, 6)),
    "defocus_blur": (
        _defocus_blur,
        _of(32, (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        _of(224, (3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "motion_blur": (_motion_blur, _of(32, 1, 1.5, 2, 2, 2.5), _of(224, 3, 5, 8, 12, 15)),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "fog": (
        _fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
MOVES: dict[str, Corruption] = {  # not of the paper: by a share of their side, and in degrees
    "shift": (_shift, (0.03, 0.06, 0.09, 0.12, 0.15), (0.03, 0.06, 0.09, 0.12, 0.15)),
    "rotation": (_rotation, (5, 10, 15, 20, 30), (5, 10, 15, 20, 30)),
}


def corrupt(image: Tensor, corruption: Corruption, severity: int) -> Tensor:
    """Corrupt images, uint8 (N, 3, H, W), at a severity of 1 to 5; the same images always in the same way."""
    draws = Generator(image.device).manual_seed(severity)
    function, small, large = corruption
    return to_uint8(function(image / 255, (small if image.shape[-1] <= 64 else large)[severity - 1], draws))


def to_uint8(x: Tensor) -> Tensor:
    """From [0, 1] to uint8 in [0, 255]; what lies beyond is clipped."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
