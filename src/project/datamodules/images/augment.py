"""Running the transforms that a config lists."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import nn

from project.datamodules.images.transforms import AlternatingFlip, Mixing, RandomCrop
from project.errors import UserError
from project.interface import Batch


def default_augmentation() -> list[nn.Module]:
    """The course's: rotation by up to 10 degrees, horizontal flip, crop; for square images of things seen upright."""
    from kornia.augmentation import RandomHorizontalFlip, RandomRotation

    return [RandomRotation(10.0), RandomHorizontalFlip(), RandomCrop()]


def is_fixed(transform: nn.Module) -> bool:
    """Whether an item transform draws nothing at random: it says so (`fixed = True`) or is known for it."""
    from torchvision.transforms import v2

    known = (v2.CenterCrop, v2.Grayscale, v2.Identity, v2.Pad, v2.Resize)
    return bool(getattr(transform, "fixed", False)) or isinstance(transform, known)


def augment(batch: Batch, transforms: Iterable[nn.Module], classes: int, epoch: int = 0) -> Batch:
    """Send a batch of uint8 (N, 3, H, W) through its transforms, in their order; they must keep the size.

    Images become float in [0, 1] (and stay as they came where there is no transform), labels become probabilities
    (N, classes) once they are mixed.
    """
    image, label, index = batch
    size = list(image.shape[-2:])
    for number, transform in enumerate(transforms):
        if number == 0:
            image = image.float().div_(255)
        if isinstance(transform, Mixing):
            soft = label if label.is_floating_point() else F.one_hot(label, classes).float()
            image, label = transform.mix(image, soft)
        elif isinstance(transform, AlternatingFlip):
            image = transform.flip(image, index, epoch)
        else:
            image = transform(image)
    if (made := list(image.shape[-2:])) != size:
        raise UserError(f"data.batch_transforms turn images of {size} pixels into {made}: they must keep the size")
    return Batch(image.clamp_(0, 1) if image.is_floating_point() else image, label, index)
