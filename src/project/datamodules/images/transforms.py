"""Transforms of single images and of batches, with independent random parameters for each image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Beta
from typing_extensions import override

from project.datamodules.images.resize import resize
from project.errors import UserError


class RandomCrop(nn.Module):
    """Randomly crop each image to its original size after reflection padding.

    He et al., Deep Residual Learning for Image Recognition, 2015 (section 4.2).

    Args:
        padding: Padding on each side, in pixels.
    """

    def __init__(self, padding: int = 2) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, image: Tensor) -> Tensor:
        """Crop a batch, float (N, C, H, W)."""
        n, _, height, width = image.shape
        if not 0 <= self.padding < min(height, width):
            largest = min(height, width) - 1
            raise UserError(f"RandomCrop.padding must be in 0 to {largest} for these images, got {self.padding}")
        padded = F.pad(image, [self.padding] * 4, mode="reflect").contiguous(memory_format=torch.channels_last)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, shifts, shifts, H, W), a view
        down, right = torch.randint(0, 2 * self.padding + 1, (2, n), device=image.device)
        return windows[torch.arange(n, device=image.device), :, down, right]


class AlternatingFlip(nn.Module):
    """Horizontally flip each image in every other epoch, so that any two consecutive epochs show both orientations.

    With random flips, half of all images have the same orientation in consecutive epochs. Jordan, 94% on CIFAR-10 in
    3.29 Seconds on a Single GPU, 2024 (arXiv 2404.00498, section 3.6).
    """

    def flip(self, image: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Flip a batch.

        Args:
            image: float (N, C, H, W).
            index: int64 (N,), rows of the images; their hashes decide which images are flipped in even epochs.
            epoch: The current epoch.
        """
        hashed = (index * 0x9E3779B1 >> 16) & 1  # multiplicative hash, so that neighboring rows are independent
        flipped = ((hashed + epoch) & 1).bool().view(-1, 1, 1, 1)
        return torch.where(flipped, image.flip(-1), image)


class RandomResizedCrop(nn.Module):
    """Crop a random area and aspect ratio of an image and resize it to the input's size; an item transform.

    Szegedy et al., Going Deeper with Convolutions, 2014 (section 6).

    Args:
        scale: Range of the cropped area, as a fraction of the image area.
        ratio: Range of the aspect ratio (width / height), sampled log-uniformly.
    """

    size: tuple[int, int]
    """Output height and width in pixels; set by the datamodule."""

    def __init__(self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        super().__init__()
        self.scale, self.ratio = scale, ratio

    def forward(self, image: Tensor) -> Tensor:
        """Return the resized crop, (C, height, width), of an image (C, H, W)."""
        top, left, height, width = self._box(*image.shape[1:])
        return resize(image[:, top : top + height, left : left + width], *self.size)

    def _box(self, height: int, width: int) -> tuple[int, int, int, int]:
        area = height * width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for share, shape, down, right in torch.rand(10, 4).tolist():
            target = area * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + shape * (high - low))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
        # No crop fits: take the largest center crop with the nearest aspect ratio.
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w


class Mixing(nn.Module):
    """Base class of batch transforms that mix both images and labels; subclasses implement `mix`.

    Args:
        alpha: Parameter of the distribution Beta(alpha, alpha) of the mixing coefficients, above 0.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if alpha <= 0:
            raise UserError(f"{type(self).__name__}.alpha must be above 0, got {alpha}")
        self.alpha = alpha

    def mix(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            image: float (N, C, H, W).
            label: Class probabilities, labels or values, float (N, outputs).
        """
        raise NotImplementedError

    def coefficients(self, image: Tensor) -> Tensor:
        """Sample the mixing coefficients, float (N,) in [0, 1]: the weight of each image itself."""
        parameter = torch.tensor(self.alpha, device=image.device)
        return Beta(parameter, parameter).sample((len(image),))


class MixUp(Mixing):
    """Blend each image and its label with another one of the batch.

    Zhang et al., mixup: Beyond Empirical Risk Minimization, 2017.
    """

    def __init__(self, alpha: float = 0.2) -> None:
        super().__init__(alpha)

    @override
    def mix(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.coefficients(image)
        other = torch.randperm(len(image), device=image.device)
        mixed = image.lerp(image[other], 1 - weight.view(-1, 1, 1, 1))
        return mixed, label.lerp(label[other], 1 - weight.view(-1, 1))


class CutMix(Mixing):
    """Replace a rectangle of each image with that of another one, and mix the labels in proportion to the areas.

    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers, 2019.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha)

    @override
    def mix(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        n, _, height, width = image.shape
        side = (1 - self.coefficients(image)).sqrt().view(n, 1)
        other = torch.randperm(n, device=image.device)
        inside = []
        for length in (height, width):
            center = torch.rand(n, 1, device=image.device) * length
            position = torch.arange(length, device=image.device) + 0.5
            inside.append((position - center).abs() < side * length / 2)
        cut = inside[0][:, :, None] & inside[1][:, None, :]
        replaced = cut.float().mean((1, 2)).view(n, 1)  # after clipping at the border
        return torch.where(cut[:, None], image[other], image), label.lerp(label[other], replaced)


class TrivialAugment(nn.Module):
    """Apply one of thirteen operations to each image, with a random strength, both sampled uniformly.

    Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, 2021. Unlike kornia's, it
    samples an operation per image rather than per batch.
    """

    def __init__(self) -> None:
        super().__init__()
        from kornia.augmentation.auto import TrivialAugment as Policy

        self.operations = nn.ModuleList(Policy().children())

    def forward(self, image: Tensor) -> Tensor:
        """Augment a batch, float (N, C, H, W) in [0, 1]."""
        choice = torch.randint(len(self.operations) + 1, (len(image),), device=image.device)
        changed = image.clone()
        for number in range(len(self.operations)):  # the last choice is the identity
            if len(rows := (choice == number).nonzero().flatten()):
                changed[rows] = self.operations[number](image[rows])
        return changed
