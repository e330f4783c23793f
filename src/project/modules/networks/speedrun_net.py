"""The network of the CIFAR-10 speed record."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.interface import ImageInput


class SpeedrunNet(nn.Module):
    """Small network for training in a few epochs: a whitening layer and three groups of two convolutions.

    Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024 (arXiv 2404.00498, section 3 and appendix A).

    Args:
        num_classes: Number of classes.
        inputs: Image size and channels; height and width must be at least 17 (32 in the paper).
        widths: Number of channels of each group.

    Raises:
        ValueError: If the images are too small.
    """

    def __init__(self, num_classes: int, inputs: ImageInput, widths: tuple[int, int, int] = (64, 256, 256)) -> None:
        super().__init__()
        if min(inputs.height, inputs.width) < 17:
            raise ValueError(f"SpeedrunNet needs an image_size of at least 17, got {inputs}")
        self.whiten = WhiteningConv(inputs.channels)
        channels = (self.whiten.out_channels, *widths)
        self.groups = nn.Sequential(*(_group(channels[i], channels[i + 1]) for i in range(3)))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        nn.init.uniform_(self.head.weight, -1e-4, 1e-4)  # initial logits close to zero

    def init_from_images(self, image: Tensor) -> None:
        """Initialize the whitening layer from normalized training images, float (N, channels, H, W)."""
        self.whiten.init_from_images(image)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, channels, height, width) to logits (N, num_classes)."""
        x = self.groups(nn.functional.gelu(self.whiten(x)))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def _group(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = [_conv(inputs, outputs), nn.MaxPool2d(2), _norm(outputs), nn.GELU()]
    return nn.Sequential(*layers, _conv(outputs, outputs), _norm(outputs), nn.GELU())


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:inputs].detach())  # identity initialization
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)  # fast-moving statistics, as training is short
    norm.weight.requires_grad_(False)
    return norm


class WhiteningConv(nn.Conv2d):
    """Convolution that whitens image patches: uncorrelated channels with unit variance, and their negatives.

    The filters are the principal components of patches of the training images, scaled to unit variance, and are not
    trained; only the bias is. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024 (arXiv 2404.00498, section
    3.2).

    Args:
        channels: Number of input channels.
        kernel_size: Height and width of a patch in pixels; the layer has 2 x channels x kernel_size² output channels.
        eps: Added to the variances, so that components with little variance are not amplified.
    """

    def __init__(self, channels: int = 3, kernel_size: int = 2, eps: float = 5e-4) -> None:
        super().__init__(channels, 2 * channels * kernel_size**2, kernel_size)
        self.eps = eps
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def init_from_images(self, image: Tensor) -> None:
        """Compute the filters from normalized training images, float (N, channels, H, W), e.g. a few thousand."""
        size = self.kernel_size[0]
        patches = F.unfold(image, size).transpose(1, 2).flatten(0, 1)
        variances, components = torch.linalg.eigh(patches.T.cov())
        filters = (components / (variances + self.eps).sqrt()).T.reshape(-1, self.in_channels, size, size)
        self.weight.copy_(torch.cat([filters, -filters]))
