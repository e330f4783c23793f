"""Input of a map-style dataset of images: size, channels and depth of some of its samples."""

from collections.abc import Sequence

import numpy as np

from project.datamodules.images.facts import Facts, ImageFacts
from project.datamodules.images.notices import describe_crop
from project.datamodules.sample_targets import Part
from project.datamodules.samples import raw_pixels
from project.errors import UserError
from project.images import Pixels
from project.interface import Fit, ImageInput, PixelType

PROBED = 100  # samples of each dataset that are looked at
DRAWN_TWICE = 5  # those that are read with two seeds


def find_input(
    parts: Sequence[Part], size: tuple[int, int] | None, channels: int | None, fit: Fit
) -> tuple[ImageInput, list[str]]:
    """Return the input for evenly spaced samples, and notices about it.

    Floats whose values are all multiples of 1/255, as of `ToTensor`, are 8-bit images.

    Args:
        parts: The datasets.
        size: Height and width; by default, those of the samples.
        channels: Number of channels; by default, the largest of the samples.
        fit: How images are brought to the size.

    Raises:
        UserError: The samples differ in size, and none is given; or floats and integers are mixed.
    """
    where = type(parts[0].dataset).__name__
    images = [raw_pixels(part.read(row)[0], part.name(row)) for part in parts for row in _even(part, PROBED)]
    facts = Facts.collect(ImageFacts.of(0, pixels, "") for pixels in images)
    types, sizes = sorted({*facts.dtypes.tolist()}), sorted({*map(tuple, facts.sizes.tolist())})
    if "float32" in types and len(types) > 1:
        raise UserError(f"{where}: some samples are floats, some {types[-1]}: return the same type for all")
    if size is None and len(sizes) > 1:
        shown = " and ".join(f"{height}x{width}" for height, width in sizes[:2])
        raise UserError(f"{where}: samples have several sizes, e.g. {shown}: give --data.image_size")
    height, width = size or sizes[0]
    found = ImageInput(height, width, channels=channels or max(pixels.shape[2] for pixels in images), fit=fit)
    dtype: PixelType = "uint8" if all(map(_is_8bit, images)) else facts.dtype()
    crop, _ = describe_crop(facts.sizes, found)
    notices = [crop] if crop else []
    value_range = facts.value_range(np.arange(len(images)), dtype)
    if dtype == "float32":
        value_range = [0.0, 1.0]
        notices.append(
            f"{where}: samples are floats of more than 256 levels, and so the model takes float images: to apply it to"
            " files of 8 bits, return uint8"
        )
    return ImageInput(height, width, channels=found.channels, fit=fit, dtype=dtype, value_range=value_range), notices


def draws(part: Part) -> bool:
    """Return True if the images of a dataset depend on the seed."""
    for row in _even(part, DRAWN_TWICE):
        one, other = (raw_pixels(part.read(row, seed)[0], part.name(row)) for seed in (0, 1))
        if not np.array_equal(one, other):
            return True
    return False


def _even(part: Part, count: int) -> list[int]:
    last = len(part.dataset) - 1
    return sorted({*np.linspace(0, last, count).astype(int).tolist()}) if last >= 0 else []


def _is_8bit(pixels: Pixels) -> bool:
    if pixels.dtype.kind == "f":
        return np.array_equal(pixels, (np.round(pixels * 255) / 255).astype(np.float32))
    return pixels.dtype == np.uint8
