"""Regions of images that nobody is to see, such as faces and number plates: hidden as images are read."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from project.errors import UserError
from project.files import read_table

HideBy = Literal["fill", "blur"]
COLUMNS = ("path", "left", "top", "right", "bottom")
GRAY, POINTS = 128, 4  # what a region is filled with; to how many points a side it is blurred


class Masks:
    """The regions that a CSV lists, a row each: path, left, top, right, bottom.

    Edges are in pixels of the upright image: left and top from 0, right and bottom just outside.
    """

    def __init__(self, table: Path, by: HideBy, paths: Sequence[str]) -> None:
        self.table, self.by = table, by
        self.boxes: dict[str, list[tuple[int, int, int, int]]] = {}
        for number, row in enumerate(read_table(table, COLUMNS), start=2):
            try:
                left, top, right, bottom = (int(row[name]) for name in COLUMNS[1:])
            except ValueError:
                raise UserError(f"{table}, line {number}: edges are whole pixels, such as 12") from None
            if not (0 <= left < right and 0 <= top < bottom):
                raise UserError(f"{table}, line {number}: a region needs 0 <= left < right and 0 <= top < bottom")
            self.boxes.setdefault(row["path"], []).append((left, top, right, bottom))
        if unknown := sorted(set(self.boxes) - set(paths)):
            lost = f"{len(unknown):,} images that are not there, such as {unknown[0]}"
            raise UserError(f"{table} names {lost}: paths are to be like {paths[0]}")

    def __repr__(self) -> str:
        """Stands for all that decides how images look."""
        return f"{self.by} {blake2b(repr(sorted(self.boxes.items())).encode(errors='surrogateescape')).hexdigest()}"

    def hide(self, image: Tensor, path: str) -> Tensor:
        """uint8 (3, H, W), in and out; a region that reaches beyond the image is a UserError."""
        if not (boxes := self.boxes.get(path)):
            return image
        image, (height, width) = image.clone(), image.shape[1:]
        for left, top, right, bottom in boxes:
            if right > width or bottom > height:
                region, has = f"{left},{top},{right},{bottom}", f"{width} x {height} pixels (upright, as EXIF has it)"
                raise UserError(f"{self.table}: the region {region} reaches beyond {path}, which has {has}")
            part = image[:, top:bottom, left:right]
            part[:] = GRAY if self.by == "fill" else _blurred(part)
        return image


def _blurred(part: Tensor) -> Tensor:
    height, width = (min(POINTS, max(1, side // 4)) for side in part.shape[1:])  # of few pixels all would be left
    points = F.adaptive_avg_pool2d(part[None].float(), (height, width))
    return F.interpolate(points, tuple(part.shape[1:]), mode="bilinear")[0].round().to(part.dtype)
