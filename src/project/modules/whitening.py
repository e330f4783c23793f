"""A first layer that is computed from the data, not learnt."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WhiteningConv(nn.Conv2d):
    """Turns each small patch of the image into uncorrelated channels of unit variance, and their negatives.

    The filters are the principal components of the training images' patches, scaled to unit variance, and stay as they
    are; only the bias is learnt. The net then starts from decorrelated inputs in place of learning them. Jordan, 94% on
    CIFAR-10 in 3.29 Seconds on a Single GPU, 2024 (arXiv 2404.00498, section 3.2).

    Args:
        kernel_size: Height and width of a patch in pixels; there are 6 x kernel_size² channels.
        eps: Added to the variances, so that components that hardly vary are not blown up into noise.
    """

    def __init__(self, kernel_size: int = 2, eps: float = 5e-4) -> None:
        super().__init__(3, 6 * kernel_size**2, kernel_size)
        self.eps = eps
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def init_from_images(self, image: Tensor) -> None:
        """Compute the filters from normalised training images, float (N, 3, H, W); a few thousand are enough."""
        size = self.kernel_size[0]
        patches = F.unfold(image, size).transpose(1, 2).flatten(0, 1)
        variances, components = torch.linalg.eigh(patches.T.cov())
        filters = (components / (variances + self.eps).sqrt()).T.reshape(-1, 3, size, size)
        self.weight.copy_(torch.cat([filters, -filters]))
