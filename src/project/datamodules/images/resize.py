"""Fitting images to the size of the network: crop, pad or stretch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from project.images import content_box, fit_pixels, visible_part
from project.interface import Fit


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (C, H, W) to (C, height, width), bilinear with antialiasing; uint8 is within one gray level of Pillow."""
    if image.shape[1:] == (height, width):
        return image
    if not _by_torch(image):
        return fit_image(image, (height, width), "stretch")
    batch = image[None].contiguous(memory_format=torch.channels_last)  # has a fast path in torch
    return F.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]


def fit_image(image: Tensor, size: tuple[int, int], fit: Fit) -> Tensor:
    """Fit an image, uint8, uint16 or float32 (C, H, W), to (C, height, width); see `project.images.fit_pixels`."""
    if image.shape[1:] == size:
        return image
    if not _by_torch(image):
        return torch.from_numpy(fit_pixels(image.permute(1, 2, 0).numpy(), size, fit))
    height, width = image.shape[1:]
    content = content_box(height, width, size, fit)
    image = resize(visible_part(height, width, size, fit).of(image), content.height, content.width)
    if content[2:] == size:
        return image
    right, bottom = size[1] - content.left - content.width, size[0] - content.top - content.height
    return F.pad(image, [content.left, right, content.top, bottom])


def _by_torch(image: Tensor) -> bool:
    """Return True if torch resizes the image exactly: it lacks uint16, and errs for some sizes with many channels."""
    return image.dtype == torch.uint8 and len(image) <= 4
