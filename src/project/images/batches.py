"""Batches of image files for exported models."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from project.errors import UserError
from project.images.decode import Pixels, UnreadableImageError, decode, read_bytes, to_dtype
from project.images.find import describe_skipped, find_images, no_images

if TYPE_CHECKING:
    from project.interface import PixelType

BATCH_SIZE, BATCH_PIXELS = 64, 2**24  # limits of a batch: images, and pixels of all images together


def image_batches(
    images: Path, channels: int, dtype: "PixelType", notes: Counter[str]
) -> Iterator[tuple[list[str], Pixels]]:
    """Return batches of consecutive images of the same size: paths, and pixels (N, C, H, W).

    Args:
        images: A folder, searched recursively, or a single image.
        channels: Number of channels.
        dtype: Data type of the pixels.
        notes: Counts what was changed in decoding.

    Raises:
        UserError: There are no images, or one cannot be read.
    """
    if not images.exists():
        raise UserError(f"no such folder or image: {images}")
    if images.is_file():
        return _batches(images.parent, [images.name], channels, dtype, notes)
    skipped: Counter[str] = Counter()
    paths = sorted(find_images(images, skipped=skipped))
    if not paths:
        raise no_images(images, skipped)
    if skipped:
        print(describe_skipped(skipped))
    return _batches(images, paths, channels, dtype, notes)


def _batches(
    root: Path, paths: Sequence[str], channels: int, dtype: "PixelType", notes: Counter[str]
) -> Iterator[tuple[list[str], Pixels]]:
    batch_paths: list[str] = []
    batch: list[Pixels] = []
    for path in paths:
        try:
            decoded = decode(read_bytes(root / path), channels)
            pixels = to_dtype(decoded.pixels, dtype).transpose(2, 0, 1)
        except UnreadableImageError as error:
            raise UserError(f"cannot read image {root / path}: {error}; remove or repair it") from error
        if decoded.note:
            notes[decoded.note] += 1
        full = len(batch) == BATCH_SIZE or (len(batch) + 1) * pixels[0].size > BATCH_PIXELS
        if batch and (full or pixels.shape != batch[0].shape):
            yield batch_paths, np.stack(batch)
            batch_paths, batch = [], []
        batch_paths, batch = [*batch_paths, path], [*batch, pixels]
    yield batch_paths, np.stack(batch)
