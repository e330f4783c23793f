"""Masking of image regions, e.g. faces and number plates, when images are read."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from project.errors import UserError
from project.tables import load_table

MaskMode = Literal["fill", "blur"]
COLUMNS = ("path", "left", "top", "right", "bottom")
GRAY = 128  # of filled regions in 8-bit images; others are filled with their mean
POINTS = 4  # resolution of blurred regions, per side


class Masks:
    """Masked regions, listed in a CSV with columns path, left, top, right, bottom.

    Coordinates are in pixels of the upright image, from 0; right and bottom are exclusive.
    """

    def __init__(self, table: Path, by: MaskMode, paths: Sequence[str]) -> None:
        self.table, self.by = table, by
        self.boxes: dict[str, list[tuple[int, int, int, int]]] = {}
        regions = load_table(table, dict.fromkeys(COLUMNS, ""))
        for row, path in enumerate(regions.cells["path"]):
            try:
                left, top, right, bottom = (int(regions.cells[name][row]) for name in COLUMNS[1:])
            except ValueError:
                raise regions.error(row, "edges must be integers, in pixels") from None
            if not (0 <= left < right and 0 <= top < bottom):
                raise regions.error(row, "a region needs 0 <= left < right and 0 <= top < bottom")
            self.boxes.setdefault(path, []).append((left, top, right, bottom))
        if unknown := sorted(set(self.boxes) - set(paths)):
            missing = f"{len(unknown):,} images that are not in the dataset, e.g. {unknown[0]}"
            raise UserError(f"{table} lists {missing}: use paths relative to the dataset directory, e.g. {paths[0]}")

    def __repr__(self) -> str:
        """Return a string that identifies the regions and how they are masked, for cache keys."""
        return f"{self.by} {blake2b(repr(sorted(self.boxes.items())).encode(errors='surrogateescape')).hexdigest()}"

    def hide(self, image: Tensor, path: str) -> Tensor:
        """Return an upright image, (C, H, W), with its regions masked.

        Raises:
            UserError: a region exceeds the image.
        """
        if not (boxes := self.boxes.get(path)):
            return image
        image, (height, width) = image.clone(), image.shape[1:]
        gray = GRAY if image.dtype == torch.uint8 else float(image.float().mean())
        for left, top, right, bottom in boxes:
            if right > width or bottom > height:
                region, size = f"{left},{top},{right},{bottom}", f"{width} x {height} pixels in EXIF orientation"
                raise UserError(f"{self.table}: the region {region} exceeds {path}, which has {size}")
            part = image[:, top:bottom, left:right]
            part[:] = gray if self.by == "fill" else _blurred(part)
        return image


def _blurred(part: Tensor) -> Tensor:
    height, width = (min(POINTS, max(1, side // 4)) for side in part.shape[1:])  # blurs small regions too
    points = F.adaptive_avg_pool2d(part[None].float(), (height, width))
    return F.interpolate(points, tuple(part.shape[1:]), mode="bilinear")[0].round().to(part.dtype)
