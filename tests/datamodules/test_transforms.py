"""Transforms have independent parameters for each image, reproducible by seed."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from project.datamodules import AlternatingFlip, CutMix, MixUp, RandomCrop, RandomResizedCrop, TrivialAugment
from project.datamodules.images.augment import augment, default_augmentation
from project.errors import UserError
from project.interface import Batch


def batch(count: int = 64, size: int = 16) -> Tensor:
    """Return copies of one image, so that differences come from the transform."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((size, size)))
    return torch.from_numpy(image).permute(2, 0, 1).repeat(count, 1, 1, 1)


def labeled(image: Tensor, label: Tensor | None = None) -> Batch:
    return Batch(image, torch.zeros(len(image), dtype=torch.long) if label is None else label, torch.arange(len(image)))


@pytest.mark.parametrize("transform", [RandomCrop(3), TrivialAugment(), *default_augmentation()])
def test_parameters_are_independent_for_each_image(transform: nn.Module) -> None:
    image = batch()
    torch.manual_seed(3)
    first = augment(labeled(image), [transform], 10).inputs
    torch.manual_seed(3)
    again = augment(labeled(image), [transform], 10).inputs
    assert torch.equal(first, again) and first.shape == image.shape
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    assert len(first.flatten(1).unique(dim=0)) > (1 if "Flip" in type(transform).__name__ else 8)


def test_random_crop_shifts_by_whole_pixels() -> None:
    image = batch().float() / 255
    moved = RandomCrop(2)(image)
    inner = image[0, :, 4:12, 4:12]
    found = [
        any(
            torch.equal(one[:, 4 + down : 12 + down, 4 + right : 12 + right], inner)
            for down in range(-2, 3)
            for right in range(-2, 3)
        )
        for one in moved
    ]
    assert all(found)


@pytest.mark.parametrize("shape", [(200, 260), (30, 300)])
def test_random_resized_crop_has_the_distribution_of_torchvision(shape: tuple[int, int]) -> None:
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop as Theirs

    transform = RandomResizedCrop(scale=(0.1, 0.9))
    torch.manual_seed(0)
    ours = np.array([transform._box(*shape) for _ in range(3000)])
    image = torch.empty(3, *shape)
    theirs = np.array([Theirs.get_params(image, [0.1, 0.9], [3 / 4, 4 / 3]) for _ in range(3000)])
    for one, other in zip(ours.T, theirs.T, strict=True):  # top, left, height, width
        assert ks_2samp(one, other).pvalue > 1e-3


def test_random_resized_crop_returns_the_image_size() -> None:
    transform = RandomResizedCrop(scale=(0.2, 0.5))
    transform.size = 12, 20
    ramp = torch.arange(200, dtype=torch.uint8).expand(3, 200, 200)  # the gray level is the column
    torch.manual_seed(0)
    crops = torch.stack([transform(ramp) for _ in range(100)])
    assert crops.shape == (100, 3, 12, 20) and crops.dtype == torch.uint8
    widths = crops[:, 0, 0, -1].int() - crops[:, 0, 0, 0]
    assert widths.min() > 60 and widths.max() < 170 and len(widths.unique()) > 30


@pytest.mark.parametrize("mixing", [MixUp(0.5), CutMix(1.0)])
def test_mixed_labels_match_the_mixed_pixels(mixing: MixUp | CutMix) -> None:
    label = torch.arange(64) % 2
    image = (label * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(64, 3, 20, 20)
    torch.manual_seed(0)
    mixed, soft, _ = augment(labeled(image, label), [mixing], 2)
    assert soft.shape == (64, 2) and torch.allclose(soft.sum(1), torch.ones(64))
    assert torch.allclose(mixed.mean((1, 2, 3)), soft[:, 1], atol=1e-5)
    assert len(soft[:, 1].unique()) > 10, "each image has its own coefficient"


def test_mixing_twice_keeps_probabilities() -> None:
    label = torch.arange(64) % 5
    _, soft, _ = augment(labeled(batch(), label), [MixUp(), CutMix(), MixUp()], 5)
    assert torch.allclose(soft.sum(1), torch.ones(64)) and float(soft.min()) >= 0


def test_alternating_flip_shows_both_orientations_in_two_epochs() -> None:
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 1, 16).expand(64, 3, 4, 16)
    seen = [augment(labeled(image), [AlternatingFlip()], 10, epoch).inputs for epoch in range(3)]
    assert torch.equal(seen[0], seen[1].flip(-1)) and torch.equal(seen[0], seen[2])
    flipped = (seen[0][:, 0, 0, 0] > 0).float()
    assert 0.35 < float(flipped.mean()) < 0.65, "half of the images start flipped"
    assert 20 < int((flipped.diff() != 0).sum()) < 50, "independently of their neighbors"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_channels_shape_and_depth(channels: int, dtype: torch.dtype) -> None:
    """The same result from uint8 and from floats, which are already scaled to [0, 1]."""
    transforms = [*default_augmentation(), AlternatingFlip(), TrivialAugment(), MixUp(), CutMix()]
    pixels = torch.randint(0, 256, (32, channels, 24, 40), generator=torch.Generator().manual_seed(0))
    image = pixels.to(dtype) if dtype == torch.uint8 else pixels.to(dtype) / 255
    results = []
    for each in (image, pixels.to(torch.uint8)):
        torch.manual_seed(0)
        results.append(augment(labeled(each), transforms, 2).inputs)
    assert results[0].shape == image.shape and torch.allclose(*results, atol=1e-5)
    assert float(results[0].min()) >= 0 and 0.5 < float(results[0].max()) <= 1
    crop = RandomResizedCrop()
    crop.size = 12, 20
    assert crop(image[0]).shape == (channels, 12, 20) and crop(image[0]).dtype == dtype


def test_transforms_for_rgb_are_refused_in_one_line() -> None:
    from kornia.augmentation import ColorJitter

    image = torch.zeros(2, 5, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match="ColorJitter does not support images of 5 channels .*: use transforms that"):
        augment(labeled(image), [ColorJitter(0.1, 0.1, 0.1, 0.1, p=1.0)], 2)
    with pytest.raises(UserError, match="change 5 channels to 2: use data.channels"):
        augment(labeled(image), [nn.Conv2d(5, 2, 1)], 2)
