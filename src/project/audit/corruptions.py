"""Image corruptions at five severities each.

After Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019:
eleven of its corruptions with the same parameters, those of CIFAR-10-C for images of up to 64 pixels and of ImageNet-C
for larger ones, with lengths scaled to the shorter side of the images. Reimplemented on batches, so results are not
comparable with published ones.
Each function takes a float batch (N, C, H, W) in [0, 1] and returns one, possibly with values outside [0, 1].
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

from project.modules.inputs import unit_range

# A function and its parameter at each severity, for small and for larger images.
Corruption = tuple[Callable[[Tensor, Any, Generator], Tensor], tuple[Any, ...], tuple[Any, ...]]


def _side(x: Tensor) -> int:
    return min(x.shape[-2:])


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _gaussian_noise(x: Tensor, std: float, generator: Generator) -> Tensor:
    return x + std * torch.randn(x.shape, generator=generator, device=x.device)


def _shot_noise(x: Tensor, photons: float, generator: Generator) -> Tensor:
    return torch.poisson(x * photons, generator=generator) / photons


def _impulse_noise(x: Tensor, amount: float, generator: Generator) -> Tensor:
    salt = (_uniform(tuple(x.shape), generator) < 0.5).to(x)
    return torch.where(_uniform(tuple(x.shape), generator) < amount, salt, x)


def _gaussian_blur(x: Tensor, std: float, generator: Generator) -> Tensor:
    sigma = std * _side(x)
    size = 2 * max(1, math.ceil(3 * sigma)) + 1
    return gaussian_blur2d(x, (size, size), (sigma, sigma))


def _defocus_blur(x: Tensor, disk_shape: tuple[float, float], generator: Generator) -> Tensor:
    """Blur with a disk kernel, given its radius and the standard deviation of its soft edge in pixels."""
    radius, edge = disk_shape[0] * _side(x), disk_shape[1]
    offset = torch.arange(-math.ceil(radius) - 2, math.ceil(radius) + 3, device=x.device)
    disk = (offset[:, None] ** 2 + offset**2 <= radius**2).to(x)
    kernel = gaussian_blur2d((disk / disk.sum())[None, None], (5, 5), (edge, edge), border_type="constant")
    return filter2d(x, kernel[0], normalized=True)


def _motion_blur(x: Tensor, std: float, generator: Generator) -> Tensor:
    """Blur along a half Gaussian, in a random direction per image within 45 degrees of horizontal."""
    sigma = std * _side(x)
    step = torch.arange(math.ceil(3 * sigma) + 1, device=x.device)
    angle = (_uniform((len(x), 1), generator) - 0.5) * math.pi / 2
    down, right = ((step * function(angle)).round().long() + step[-1] for function in (torch.sin, torch.cos))
    size = 2 * int(step[-1]) + 1
    weight = torch.exp(-(step**2) / (2 * sigma**2)).expand(len(x), -1)
    kernel = torch.zeros(len(x), size * size, device=x.device).scatter_add(1, down * size + right, weight)
    return filter2d(x, kernel.view(-1, size, size), normalized=True)


def _brightness(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Add to the value channel of HSV, the maximum of all channels."""
    value = x.amax(1, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return torch.where(value > 0, x * raised / value.clamp(min=1e-6), raised)


def _contrast(x: Tensor, factor: float, generator: Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def _fog(x: Tensor, clouds_shape: tuple[float, float], generator: Generator) -> Tensor:
    """Add an amount of clouds: a sum of noise octaves, each weaker by the factor `decay` than the one before."""
    amount, decay = clouds_shape
    clouds = torch.zeros_like(x[:, :1])
    for octave in range(1, int(math.log2(_side(x))) + 1):
        rows, columns = (2**octave * side // _side(x) for side in x.shape[-2:])
        noise = _uniform((len(x), 1, rows, columns), generator)
        clouds += F.interpolate(noise, x.shape[-2:], mode="bilinear") / decay**octave
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    peak = x.amax((1, 2, 3), keepdim=True)
    return (x + amount * (clouds - low) / (high - low)) * peak / (peak + amount)


def _pixelate(x: Tensor, factor: float, generator: Generator) -> Tensor:
    small = [max(1, int(side * factor)) for side in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, small, mode="area"), x.shape[-2:], mode="nearest")


def _jpeg(x: Tensor, quality: int, generator: Generator) -> Tensor:
    pixels = to_uint8(x).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    colors, subsampling = ("GRAY", "Gray") if x.shape[1] == 1 else ("RGB", "420")
    decoded = [decode_jpeg(encode_jpeg(each, quality, colors, subsampling), colors) for each in pixels]
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(x.device) / 255


def _shift(x: Tensor, distance: float, generator: Generator) -> Tensor:
    """Translate each image by a fraction of its shorter side in a random direction, with reflection padding."""
    angle = _uniform((len(x),), generator) * 2 * math.pi
    translation = torch.stack([angle.cos(), angle.sin()], 1) * distance * _side(x)
    return translate(x, translation, padding_mode="reflection")


def _rotation(x: Tensor, degrees: float, generator: Generator) -> Tensor:
    """Rotate each image clockwise or counterclockwise, at random, with reflection padding."""
    return rotate(x, (_uniform((len(x),), generator) < 0.5).to(x) * 2 * degrees - degrees, padding_mode="reflection")


def _relative(side: int, *lengths: Any) -> tuple[Any, ...]:
    """Return lengths in pixels as fractions of the side of a square image."""
    return tuple((x[0] / side, x[1]) if isinstance(x, tuple) else x / side for x in lengths)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (_gaussian_blur, _relative(32, 0.4, 0.6, 0.7, 0.8, 1), _relative(224, 1, 2, 3, 4, 6)),
    "defocus_blur": (
        _defocus_blur,
        _relative(32, (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        _relative(224, (3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "motion_blur": (_motion_blur, _relative(32, 1, 1.5, 2, 2, 2.5), _relative(224, 3, 5, 8, 12, 15)),
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
GEOMETRIC: dict[str, Corruption] = {  # not from the paper; as a fraction of the shorter side, and in degrees
    "shift": (_shift, (0.03, 0.06, 0.09, 0.12, 0.15), (0.03, 0.06, 0.09, 0.12, 0.15)),
    "rotation": (_rotation, (5, 10, 15, 20, 30), (5, 10, 15, 20, 30)),
}


def supports(name: str, channels: int) -> bool:
    """Return True if a corruption is defined for this number of channels: JPEG is for one or three."""
    return name != "jpeg" or channels in (1, 3)


def corrupt(image: Tensor, corruption: Corruption, severity: int) -> Tensor:
    """Corrupt images at a severity of 1 to 5; deterministic for a given batch.

    Args:
        image: uint8 in [0, 255] or float in [0, 1], (N, C, H, W); the result has the same dtype and range.
        corruption: A value of `CORRUPTIONS` or `GEOMETRIC`.
        severity: The severity.
    """
    generator = Generator(image.device).manual_seed(severity)
    function, small, large = corruption
    corrupted = function(unit_range(image), (small if _side(image) <= 64 else large)[severity - 1], generator)
    return corrupted.clamp(0, 1) if image.is_floating_point() else to_uint8(corrupted)


def to_uint8(x: Tensor) -> Tensor:
    """Convert from [0, 1] to uint8 in [0, 255], clipping values outside."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
