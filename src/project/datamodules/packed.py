"""Looking at every image once: which can be read, and, where they fit, their pixels in one file."""

import csv
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import nn

from project.datamodules.decode import decode_image, to_square
from project.datamodules.index import ImageIndex
from project.datamodules.parallel import each
from project.errors import FULL, UserError
from project.files import flush_to_disk
from project.images import Pixels, UnreadableImageError, read_bytes

FORMAT = 2
"""Raised when the same files would give other pixels."""

UNUSED = 7 * 24 * 3600
"""Seconds after which what nobody has used is deleted, when something new is written."""


@dataclass(frozen=True)
class Decoded:
    """What one pass over an index found.

    Attributes:
        unreadable: Reason by row, for every image that cannot be decoded.
        content: uint64 (N,), stands for the bytes of each file: the same number, the same file.
        pixels: uint8 (N, size, size, 3), a read-only memory map with a row an image; None where they do not fit.
    """

    unreadable: dict[int, str]
    content: NDArray[np.uint64]
    pixels: Pixels | None


def decode_all(index: ImageIndex, size: int, transforms: Sequence[nn.Module], pack: bool, folder: Path) -> Decoded:
    """Decode every image once, in parallel, and remember the outcome in `folder` until a file changes.

    Several processes that ask together wait for the one that works. A file is complete or not there: it is written
    under another name and renamed. What nobody has asked for in a week is deleted when something new is written.

    Args:
        index: The images.
        size: Height and width to bring them to, in pixels.
        transforms: Item transforms, which draw nothing at random.
        pack: Keep the pixels too; without, they are used if they were kept before.
        folder: Where the outcome is kept.

    Raises:
        UserError: the disk is full.
    """
    key = _files_key(index)
    look = blake2b(
        f"{FORMAT} {size} {[repr(transform) for transform in transforms]} {index.masks or ''}".encode(), digest_size=4
    ).hexdigest()
    report, packed = folder / f"{key}.csv", folder / f"{key}_{look}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{key}.lock"):
        if not report.exists() or (pack and not packed.exists()):
            _sweep(folder)
            _decode(index, size, transforms, packed if pack else None, report)
        for file in (report, packed):
            if file.exists():
                file.touch()
        with report.open(newline="", encoding="utf-8") as stream:
            found = list(csv.reader(stream))
        # Copied on writing, which nobody does: torch warns of memory that cannot be written to.
        pixels = np.load(packed, mmap_mode="c") if packed.exists() else None
    unreadable = {row: reason for row, (_, reason) in enumerate(found) if reason}
    return Decoded(unreadable, np.array([int(number, 16) for number, _ in found], dtype=np.uint64), pixels)


def _sweep(folder: Path) -> None:
    """Delete what nobody used for a week: what runs has opened it since, and on a network drive could not go on."""
    for file in folder.glob("[!.]*"):
        key = file.name.partition("_")[0].partition(".")[0]
        with suppress(Timeout, FileNotFoundError), FileLock(folder / f".{key}.lock", blocking=False):
            if file.stat().st_mtime < time.time() - UNUSED:
                file.unlink()


def _files_key(index: ImageIndex) -> str:
    """Changes when a file does: its path, size, or the time that its content or its permissions changed."""
    stats = np.zeros((len(index.paths), 3), np.int64)
    for row, path in enumerate(index.paths):
        try:
            status = os.stat(os.path.join(index.root, path))  # noqa: PTH116, PTH118 - a third of the time of Path
            stats[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        except OSError:
            pass  # it is named when it is decoded
    root = os.fsencode(index.root.resolve())
    return blake2b(index.paths.digest() + stats.tobytes() + root, digest_size=10).hexdigest()


def _decode(index: ImageIndex, size: int, transforms: Sequence[nn.Module], packed: Path | None, report: Path) -> None:
    count, partial = len(index.paths), report.with_suffix(".partial")
    work = _Work(index, size, list(transforms), partial if packed else None)
    try:
        if packed:
            _allocate(partial, (count, size, size, 3))
        found = list(each(work, count, "packing images" if packed else "checking images"))
        if packed:
            flush_to_disk(partial)
            partial.replace(packed)
        with partial.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows((f"{content:x}", reason) for content, reason in found)
        flush_to_disk(partial)
        partial.replace(report)
    except OSError as error:
        if error.errno not in FULL:
            raise
        need = f"{count * size * size * 3 / 1e9:.2g} GB in {partial.parent}"
        raise UserError(
            f"the disk is full: packing the images needs {need}. Free some, choose another place by --data.cache_dir,"
            " or do without by --data.pack_limit 0"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _allocate(file: Path, shape: tuple[int, ...]) -> None:
    """Reserve the disk's blocks at once: a memory map that meets a full disk later kills the process."""
    np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


class _Work:
    """Decodes one image and puts it where it belongs; returns a hash of its file and why it could not be read."""

    def __init__(self, index: ImageIndex, size: int, transforms: list[nn.Module], file: Path | None) -> None:
        self.index, self.size, self.transforms, self.file = index, size, transforms, file
        self._pixels: Pixels | None = None

    def __call__(self, row: int) -> tuple[int, str]:
        path, content = self.index.root / self.index.paths[row], 0
        try:
            data = read_bytes(path)
            content = content_hash(data)
            image = self.index.hide(decode_image(data), row)
        except UnreadableImageError as error:
            return content, str(error)
        if self.file is not None:
            if self._pixels is None:
                self._pixels = np.load(self.file, mmap_mode="r+")
            for transform in self.transforms:
                image = transform(image)
            self._pixels[row] = to_square(image, self.size).permute(1, 2, 0).numpy()
        return content, ""


def content_hash(data: bytes) -> int:
    """64 bits that stand for the content of a file."""
    return int.from_bytes(blake2b(data, digest_size=8).digest())


def skip_unreadable(
    index: ImageIndex,
    unreadable: dict[int, str],
    policy: Literal["error", "skip"],
    option: str = "--data.on_corrupt",
) -> ImageIndex:
    """Leave out the images that cannot be read, or name them all.

    Args:
        index: The images.
        unreadable: Reason by row.
        policy: What to do.
        option: What the command line calls the policy.

    Raises:
        UserError: there are some and the policy is `error`; or a class has no other.
    """
    if not unreadable:
        return index
    names = [f"{index.root / index.paths[row]}: {reason}" for row, reason in unreadable.items()]
    splits = index.splits.astype("<U5")
    splits[list(unreadable)] = "skip"
    for label, name in enumerate(index.class_names):
        if (splits[index.labels == label] == "skip").all():
            raise UserError(f"class '{name}' in {index.root} has no readable image", names)
    if policy == "error" and len(index.paths) == 1:
        raise UserError(f"cannot read {names[0]}")
    if policy == "error":
        raise UserError(
            f"{len(unreadable):,} of {len(index.paths):,} images in {index.root} cannot be read ({names[0]}):"
            f" mend or remove what is listed above, or go on without by {option} skip",
            names,
        )
    rank_zero_warn(f"skipping {len(unreadable):,} images that cannot be read: {', '.join(names[:3])}")
    return replace(index, splits=splits)


def warn_of_copies(index: ImageIndex, content: NDArray[np.uint64]) -> None:
    """Warn of files that are the same byte by byte, in two splits or under two labels."""
    order = np.argsort(content, kind="stable")
    order = order[index.splits[order] != "skip"]
    same = content[order][1:] == content[order][:-1]
    one, other = order[:-1][same], order[1:][same]
    for what, value in (("in two splits", index.splits), ("under two labels", index.labels)):
        if count := np.count_nonzero(value[one] != value[other]):
            first = np.flatnonzero(value[one] != value[other])[0]
            rank_zero_warn(
                f"{count:,} pictures are {what}, such as {index.paths[one[first]]} and {index.paths[other[first]]}:"
                f" list them with `python -m project check_data {index.root}`"
            )
