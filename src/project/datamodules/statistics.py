"""Channel statistics, and the first look at whether images can be read."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from project.datamodules.decode import UnreadableImageError, read_rgb, to_square
from project.datamodules.index import ImageIndex
from project.errors import UserError

SAMPLE = 2000
"""Images that the statistics are taken from: the error of a channel mean is then well below one grey level."""


def channel_statistics(index: ImageIndex, rows: NDArray[np.int64], image_size: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each RGB channel, in [0, 1], over an even sample of the given rows."""
    sample = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]

    def moments(row: int) -> NDArray[np.float64] | None:
        try:
            pixels = to_square(read_rgb(index.root / index.paths[row]), image_size)
        except UnreadableImageError:
            return None  # the loader names it, with the policy that the user chose
        values = pixels.reshape(-1, 3) / 255.0
        return np.stack([values.mean(0), (values**2).mean(0)])

    with ThreadPoolExecutor() as pool:
        found = [m for m in pool.map(moments, sample.tolist()) if m is not None]
    mean, square = np.mean(found, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0)).clip(min=1 / 255)  # a constant channel must not divide by zero
    return mean.round(6).tolist(), std.round(6).tolist()


def check_readable(index: ImageIndex) -> None:
    """Insist that every class has an image that can be read.

    Raises:
        UserError: names the first class that has none.
    """
    for label, name in enumerate(index.class_names):
        rows = np.flatnonzero(index.labels == label)
        reason = ""
        for row in rows.tolist():
            try:
                read_rgb(index.root / index.paths[row])
                break
            except UnreadableImageError as error:
                reason = reason or f"{index.paths[row]}: {error}"
        else:
            raise UserError(f"class '{name}' in {index.root} has no readable image ({reason})")
