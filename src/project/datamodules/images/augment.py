"""Batch augmentation."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.datamodules.images.transforms import AlternatingFlip, Mixing, RandomCrop
from project.errors import UserError
from project.interface import Batch
from project.output import pluralize


def default_augmentation() -> list[nn.Module]:
    """Return the default batch transforms: rotation by up to 10 degrees, horizontal flip and random crop."""
    from kornia.augmentation import RandomHorizontalFlip, RandomRotation

    return [RandomRotation(10.0), RandomHorizontalFlip(), RandomCrop()]


def is_fixed(transform: nn.Module) -> bool:
    """Return True if an item transform is deterministic: it has `fixed = True` or is a known torchvision transform."""
    from torchvision.transforms import v2

    known = (v2.CenterCrop, v2.Grayscale, v2.Identity, v2.Pad, v2.Resize)
    return bool(getattr(transform, "fixed", False)) or isinstance(transform, known)


def apply(transform: nn.Module, image: Tensor) -> Tensor:
    """Apply a transform to images, (..., C, H, W); raise a UserError if it fails as the images are not RGB."""
    try:
        result: Tensor = transform(image)
    except (RuntimeError, TypeError, ValueError) as error:
        if image.shape[-3] == 3 or isinstance(error, torch.OutOfMemoryError):
            raise
        name, reason = type(transform).__name__, str(error).partition("\n")[0]
        fix = "use transforms that do not mix colors, such as project.datamodules.RandomCrop and TrivialAugment"
        raise UserError(
            f"the transform {name} does not support images of {pluralize(image.shape[-3], 'channel')} ({reason}): {fix}"
        ) from error
    return result


def augment(batch: Batch, transforms: Iterable[nn.Module], classes: int, epoch: int = 0) -> Batch:
    """Apply transforms to a batch of images, (N, C, H, W), uint8 or float in [0, 1].

    Images become float in [0, 1], unless there are no transforms. Mixing turns labels into probabilities, float
    (N, classes).

    Raises:
        UserError: a transform changes the image size or the number of channels, or does not support it.
    """
    image, label, index = batch
    channels, *size = image.shape[1:]
    for number, transform in enumerate(transforms):
        if number == 0 and image.dtype == torch.uint8:
            image = image.float().div_(255)
        if isinstance(transform, Mixing):
            soft = F.one_hot(label, classes).float() if label.ndim == 1 else label
            image, label = transform.mix(image, soft)
        elif isinstance(transform, AlternatingFlip):
            image = transform.flip(image, index, epoch)
        else:
            image = apply(transform, image)
    new_channels, *new_size = image.shape[1:]
    if new_size != size:
        raise UserError(f"data.batch_transforms change the image size from {size} to {new_size}: they must preserve it")
    if new_channels != channels:
        raise UserError(
            f"data.batch_transforms change {channels} channels to {new_channels}: use data.channels instead"
        )
    return Batch(image.clamp_(0, 1) if image.is_floating_point() else image, label, index)
