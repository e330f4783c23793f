"""Batch augmentation."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from project.datamodules.images.transforms import AlternatingFlip, Mixing, RandomCrop
from project.errors import UserError
from project.interface import Batch


def default_augmentation() -> list[nn.Module]:
    """Return the default batch transforms: rotation by up to 10 degrees, horizontal flip and random crop."""
    from kornia.augmentation import RandomHorizontalFlip, RandomRotation

    return [RandomRotation(10.0), RandomHorizontalFlip(), RandomCrop()]


def is_fixed(transform: nn.Module) -> bool:
    """Return True if an item transform is deterministic: it has `fixed = True` or is a known torchvision transform."""
    from torchvision.transforms import v2

    known = (v2.CenterCrop, v2.Grayscale, v2.Identity, v2.Pad, v2.Resize)
    return bool(getattr(transform, "fixed", False)) or isinstance(transform, known)


def augment(batch: Batch, transforms: Iterable[nn.Module], classes: int, epoch: int = 0) -> Batch:
    """Apply transforms to a batch of images, (N, C, H, W), uint8 or float in [0, 1].

    Images become float in [0, 1], unless there are no transforms. Mixing turns labels into probabilities, float
    (N, classes).

    Raises:
        UserError: a transform changes the image size.
    """
    image, label, index = batch
    size = list(image.shape[-2:])
    for number, transform in enumerate(transforms):
        if number == 0 and image.dtype == torch.uint8:
            image = image.float().div_(255)
        if isinstance(transform, Mixing):
            soft = label if label.is_floating_point() else F.one_hot(label, classes).float()
            image, label = transform.mix(image, soft)
        elif isinstance(transform, AlternatingFlip):
            image = transform.flip(image, index, epoch)
        else:
            image = transform(image)
    if (new_size := list(image.shape[-2:])) != size:
        raise UserError(f"data.batch_transforms change the image size from {size} to {new_size}: they must preserve it")
    return Batch(image.clamp_(0, 1) if image.is_floating_point() else image, label, index)
