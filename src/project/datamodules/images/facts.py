"""Facts about the files of a dataset, collected when they are decoded once."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from project.images import Pixels
from project.interface import PixelType

SAMPLE = 100_000  # pixels that the lowest and highest values of an image are estimated from


class ImageFacts(NamedTuple):
    """Facts about one file; if it is unreadable, only `content` and `error`."""

    content: int = 0  # hash of the file
    error: str = ""
    height: int = 0
    width: int = 0
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    note: str = ""

    @classmethod
    def of(cls, content: int, pixels: Pixels, note: str) -> "ImageFacts":
        """Describe decoded pixels, (H, W, C); `low` and `high` exclude outliers such as dead pixels."""
        low, high = 0.0, 255.0
        if pixels.dtype != np.uint8:
            values = pixels.reshape(-1)
            low, high = np.percentile(values[:: max(1, values.size // SAMPLE)], (0.1, 99.9)).tolist()
        height, width, _ = pixels.shape
        return cls(content, "", height, width, pixels.dtype.name, low, high, note)


class Facts(NamedTuple):
    """Facts about N files, by row of the index.

    Attributes:
        content: Hash of each file, uint64 (N,).
        sizes: Height and width, int32 (N, 2); 0 for unreadable files.
        dtypes: Data type of the pixels (N,); empty for unreadable files.
        ranges: Lowest and highest value of each image, without outliers, float64 (N, 2).
        notes: What was left out or changed when each file was decoded (N,); mostly empty.
        errors: Why files are unreadable, by row.
    """

    content: NDArray[np.uint64]
    sizes: NDArray[np.int32]
    dtypes: NDArray[np.str_]
    ranges: NDArray[np.float64]
    notes: NDArray[np.str_]
    errors: dict[int, str]

    @classmethod
    def collect(cls, images: Iterable[ImageFacts]) -> "Facts":
        """Collect the facts about single files."""
        content, errors, heights, widths, dtypes, lows, highs, notes = zip(*images, strict=True)
        return cls(
            np.array(content, np.uint64),
            np.stack([heights, widths], 1).astype(np.int32),
            np.array(dtypes),
            np.stack([lows, highs], 1).astype(np.float64),
            np.array(notes),
            {row: error for row, error in enumerate(errors) if error},
        )

    def save(self, file: Path) -> None:
        """Write the facts as one .npz file."""
        arrays: dict[str, Any] = {**self._asdict(), "errors": np.array(json.dumps(self.errors))}
        with file.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, file: Path | BinaryIO) -> "Facts":
        """Read the facts written by `save`."""
        with np.load(file) as arrays:
            values: dict[str, Any] = dict(arrays)
        values["errors"] = {int(row): error for row, error in json.loads(str(values["errors"])).items()}
        return cls(**values)

    def dtype(self) -> PixelType:
        """Return the dtype in which most files can be compared: the widest, of integers or of floats."""
        counts = Counter(self.dtypes[self.dtypes != ""].tolist())
        if counts["float32"] > counts["uint8"] + counts["uint16"]:
            return "float32"
        return "uint16" if counts["uint16"] else "uint8"

    def mismatches(self, dtype: PixelType) -> dict[int, str]:
        """Return an error for every file whose values cannot be compared with those of the other files, by row."""
        is_float = self.dtypes == "float32"
        rows = np.flatnonzero((self.dtypes != "") & (is_float != (dtype == "float32")))
        reason = "pixels, unlike most files: the scales are not comparable"
        return {row: f"{self.dtypes[row]} {reason}" for row in rows.tolist()}

    def value_range(self, rows: NDArray[np.int64], dtype: PixelType) -> list[float]:
        """Return the pixel values that become 0 and 1, from the images at some rows.

        8-bit images, also if stored with 16 bits, use the full scale; others the range of all images but the most
        extreme.
        """
        if dtype == "uint8":
            return [0.0, 255.0]
        if dtype == "uint16" and (self.dtypes[rows] == "uint8").any():
            return [0.0, 65535.0]
        rows = rows[self.dtypes[rows] != ""]
        low = float(np.percentile(self.ranges[rows, 0], 1))
        high = float(np.percentile(self.ranges[rows, 1], 99))
        return [float(f"{low:.6g}"), float(f"{high if high > low else low + 1:.6g}")]
