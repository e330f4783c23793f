"""Images of any map-style dataset, read one batch at a time; what it draws is seeded by (seed, epoch, row)."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from typing_extensions import override

from project.datamodules.images.dataset import Images
from project.datamodules.images.resize import fit_image
from project.datamodules.index import Index
from project.datamodules.sampler import hash_seed
from project.errors import UserError
from project.images import Pixels, to_pixels
from project.images.decode import from_pillow
from project.interface import ImageInput

IMAGE_KEYS = ("image", "img", "pixel_values")
TARGET_KEYS = ("label", "labels", "target")
"""Keys of a sample that is a dictionary."""


@contextmanager
def seeded(*values: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and `random` by a hash; outside workers, restore them afterwards."""
    states = None
    if get_worker_info() is None:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    seed = hash_seed(*values)
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        if states:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])


def split_sample(sample: Any, name: str) -> tuple[Any, Any]:
    """Return the image and the target, None if there is none, of a sample: an image, a pair or a dictionary.

    Raises:
        UserError: A dictionary has no image.
    """
    if isinstance(sample, Mapping):
        image = next((sample[key] for key in IMAGE_KEYS if key in sample), None)
        if image is None:
            raise UserError(f"sample {name} has no {' or '.join(IMAGE_KEYS)}, only {', '.join(map(str, sample))}")
        return image, next((sample[key] for key in TARGET_KEYS if key in sample), None)
    if isinstance(sample, tuple | list):
        return sample[0], sample[1] if len(sample) > 1 else None
    return sample, None


def raw_pixels(image: Any, name: str) -> Pixels:
    """Return an image of any number of channels, uint8, uint16 or float32 in [0, 1], (H, W, C).

    Raises:
        UserError: It is not a PIL image, an array (H, W, C) or a tensor (C, H, W) of such pixels.
    """
    if isinstance(image, Image.Image):
        pixels, has_alpha, _ = from_pillow(image)
        return pixels[..., :-1] if has_alpha else pixels
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    kind = f"{array.dtype} {tuple(array.shape)}" if array.ndim else type(image).__name__
    if array.ndim not in (2, 3) or not array.size or not (array.dtype.kind == "f" or array.dtype in ("u1", "u2")):
        raise UserError(
            f"the image of sample {name} is {kind}: return a PIL image, an array (H, W, C) or a tensor (C, H, W), uint8"
            " or float in [0, 1]"
        )
    array = array[..., None] if array.ndim == 2 else array.transpose(1, 2, 0) if isinstance(image, Tensor) else array
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            values = f"floats from {array.min():g} to {array.max():g}"
            fix = "return uint8 or floats in [0, 1], without Normalize: the model normalizes"
            raise UserError(f"the image of sample {name} has {values}: {fix}")
        array = array.astype(np.float32)
    return array


class Samples(Images):
    """Images of a map-style dataset.

    Args:
        dataset: The dataset; a sample's index is its row.
        index: The index of its samples.
        rows: int64 (N,), rows of the index.
        inputs: Size, channels, fit and depth of the images.
        seed: Seed of what the dataset draws.
        augmented: Whether that also depends on the epoch, as in training.
        same_size: Whether an image of another size is an error.
        pixels: Packed pixels, used instead of the dataset; see `Images`.
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any],
        index: Index,
        rows: NDArray[np.int64],
        inputs: ImageInput,
        seed: int,
        augmented: bool = False,
        same_size: bool = False,
        pixels: Pixels | None = None,
    ) -> None:
        super().__init__(index, rows, inputs, (), seed, pixels)
        self.dataset, self.augmented, self.same_size = dataset, augmented, same_size

    @override
    def decoded(self, row: int) -> Tensor:
        return self._read(row, 0)

    @override
    def _load(self, row: int, epoch: int) -> Tensor:
        image = self._read(row, epoch if self.augmented else 0)
        return self.inputs.prepare(fit_image(image, self.inputs.size, self.inputs.fit))

    def _read(self, row: int, epoch: int) -> Tensor:
        name = self.index.keys[row]
        with seeded(self.seed, epoch, row):
            image, _ = split_sample(self.dataset[row], name)
        raw = raw_pixels(image, name)
        if self.same_size and raw.shape[:2] != self.inputs.size:
            height, width = raw.shape[:2]
            other = "x".join(map(str, self.inputs.size))
            raise UserError(f"sample {name} is {height}x{width}, others are {other}: give --data.image_size")
        if self.inputs.dtype == "float32" and raw.dtype != np.float32:
            raise UserError(f"sample {name} is {raw.dtype}, others are floats: return the same type for all")
        try:
            pixels = to_pixels(image, self.inputs.channels, self.inputs.dtype)
        except ValueError as error:
            raise UserError(f"sample {name}: {error}") from error
        return torch.from_numpy(pixels).permute(2, 0, 1)
