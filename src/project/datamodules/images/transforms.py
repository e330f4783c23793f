"""Transforms of single images and of whole batches: what kornia does not have, or not image by image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Beta

from project.datamodules.images.decode import resize
from project.errors import UserError


class RandomCrop(nn.Module):
    """Shifts each image by up to `padding` pixels each way: pads by reflection, then cuts out the original size.

    He et al., Deep Residual Learning for Image Recognition, 2015 (section 4.2).

    Args:
        padding: Largest shift in pixels.
    """

    def __init__(self, padding: int = 2) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, image: Tensor) -> Tensor:
        """Float (N, C, H, W), in and out."""
        n, _, height, width = image.shape
        if not 0 <= self.padding < min(height, width):
            raise UserError(f"RandomCrop.padding must be less than the image's side, {min(height, width)} pixels")
        padded = F.pad(image, [self.padding] * 4, mode="reflect").contiguous(memory_format=torch.channels_last)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, shifts, shifts, H, W), a view
        down, right = torch.randint(0, 2 * self.padding + 1, (2, n), device=image.device)
        return windows[torch.arange(n, device=image.device), :, down, right]


class AlternatingFlip(nn.Module):
    """Mirrors each image in every other epoch, so that two epochs show every image both ways.

    Drawn anew each time, half of all images would look the same twice in a row. Jordan, 94% on CIFAR-10 in 3.29 Seconds
    on a Single GPU, 2024 (arXiv 2404.00498, section 3.6).
    """

    def flip(self, image: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Float (N, C, H, W), in and out; the rows of the images, int64 (N,), decide which of them begin mirrored."""
        scattered = (index * 0x9E3779B1 >> 16) & 1  # a multiplicative hash: neighbors differ
        mirrored = ((scattered + epoch) & 1).bool().view(-1, 1, 1, 1)
        return torch.where(mirrored, image.flip(-1), image)


class RandomResizedCrop(nn.Module):
    """Cuts out a random part of one image and brings it to the size that the net sees; an item transform.

    Szegedy et al., Going Deeper with Convolutions, 2014 (section 6).

    Args:
        scale: Range of the part's area, as a share of the image's.
        ratio: Range of the part's width over its height, drawn evenly on a logarithmic scale.
    """

    image_size: int
    """Set by the datamodule."""

    def __init__(self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        super().__init__()
        self.scale, self.ratio = scale, ratio

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) to uint8 (3, image_size, image_size)."""
        top, left, height, width = self._box(*image.shape[1:])
        return resize(image[:, top : top + height, left : left + width], self.image_size)

    def _box(self, height: int, width: int) -> tuple[int, int, int, int]:
        area = height * width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for share, shape, down, right in torch.rand(10, 4).tolist():
            target = area * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + shape * (high - low))
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
        # No part fits: the largest one of the nearest ratio, from the middle.
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w


class Mixing(nn.Module):
    """A batch transform that changes labels along with images; subclass it and implement `mix`.

    Args:
        alpha: Both parameters of the beta distribution that each image's share is drawn from, above 0.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if alpha <= 0:
            raise UserError(f"{type(self).__name__}.alpha must be above 0, got {alpha}")
        self.alpha = alpha

    def mix(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Float (N, C, H, W) and label probabilities (N, classes), in and out."""
        raise NotImplementedError

    def shares(self, image: Tensor) -> Tensor:
        """What each image keeps of itself, (N,) in [0, 1]."""
        parameter = torch.tensor(self.alpha, device=image.device)
        return Beta(parameter, parameter).sample((len(image),))


class MixUp(Mixing):
    """Blends each image with another of the batch, and their labels alike.

    Zhang et al., mixup: Beyond Empirical Risk Minimization, 2017.
    """

    def __init__(self, alpha: float = 0.2) -> None:
        super().__init__(alpha)

    def mix(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Float (N, C, H, W) and label probabilities (N, classes), in and out."""
        share = self.shares(image)
        other = torch.randperm(len(image), device=image.device)
        mixed = image.lerp(image[other], 1 - share.view(-1, 1, 1, 1))
        return mixed, label.lerp(label[other], 1 - share.view(-1, 1))


class CutMix(Mixing):
    """Replaces a rectangle of each image by that of another, and its share of the label alike.

    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers, 2019.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha)

    def mix(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Float (N, C, H, W) and label probabilities (N, classes), in and out."""
        n, _, height, width = image.shape
        side = (1 - self.shares(image)).sqrt().view(n, 1)
        other = torch.randperm(n, device=image.device)
        inside = []
        for length in (height, width):
            center = torch.rand(n, 1, device=image.device) * length
            place = torch.arange(length, device=image.device) + 0.5
            inside.append((place - center).abs() < side * length / 2)
        cut = inside[0][:, :, None] & inside[1][:, None, :]
        share = cut.float().mean((1, 2)).view(n, 1)  # what the border left of the rectangle
        return torch.where(cut[:, None], image[other], image), label.lerp(label[other], share)


class TrivialAugment(nn.Module):
    """One operation an image, drawn evenly from thirteen, at a strength drawn evenly from its range.

    Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, 2021. kornia's own draws one
    operation for the whole batch; this hands each operation the images that drew it.
    """

    def __init__(self) -> None:
        super().__init__()
        from kornia.augmentation.auto import TrivialAugment as Policy

        self.operations = nn.ModuleList(Policy().children())

    def forward(self, image: Tensor) -> Tensor:
        """Float (N, 3, H, W) in [0, 1], in and out."""
        choice = torch.randint(len(self.operations) + 1, (len(image),), device=image.device)
        changed = image.clone()
        for number in range(len(self.operations)):  # the last number leaves the image as it is
            if len(rows := (choice == number).nonzero().flatten()):
                changed[rows] = self.operations[number](image[rows])
        return changed
