"""Looking at every image once: which can be read, and, where they fit, their pixels in one file."""

import csv
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import nn

from project.datamodules.images.decode import center_crop_resize, decode_image
from project.datamodules.index import ImageIndex
from project.datamodules.parallel import each
from project.errors import FULL, UserError
from project.files import flush_to_disk
from project.images import Pixels, UnreadableImageError, read_bytes

FORMAT = 2  # raised when the same files would give other pixels
UNUSED = 7 * 24 * 3600  # seconds after which what nobody has used is deleted, when something new is written


class Decoded(NamedTuple):
    """What one pass over an index found."""

    unreadable: dict[int, str]  # reasons by row
    content: NDArray[np.uint64]  # (N,), of the bytes of each file: the same number, the same file
    pixels: Pixels | None  # a memory map, uint8 (N, size, size, 3), a row an image; None where they do not fit


def decode_all(index: ImageIndex, size: int, transforms: Sequence[nn.Module], pack: bool, folder: Path) -> Decoded:
    """Decode every image once, in parallel, and remember the outcome in `folder` until a file changes.

    Several processes that ask together wait for the one that works; a file is complete or not there. Images are brought
    to (size, size) after transforms that draw nothing at random. Their pixels are kept where `pack` says so, and
    without it used if they were kept before.
    """
    key = _files_key(index)
    look = f"{FORMAT} {size} {[repr(transform) for transform in transforms]} {index.masks or ''}".encode()
    report, packed = folder / f"{key}.csv", folder / f"{key}_{blake2b(look, digest_size=4).hexdigest()}.npy"
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
    count, unfinished = len(index.paths), report.with_suffix(".partial")
    work = partial(_decode_one, index, size, list(transforms), unfinished if packed else None)
    try:
        if packed:
            np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, size, size, 3))
            if hasattr(os, "posix_fallocate"):  # a memory map that meets a full disk later kills the process
                with unfinished.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, unfinished.stat().st_size)
        found = list(each(work, count, "packing images" if packed else "checking images"))
        if packed:
            flush_to_disk(unfinished)
            unfinished.replace(packed)
        with unfinished.open("w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows((f"{content:x}", reason) for content, reason in found)
        flush_to_disk(unfinished)
        unfinished.replace(report)
    except OSError as error:
        if error.errno not in FULL:
            raise
        need = f"{count * size * size * 3 / 1e9:.2g} GB in {report.parent}"
        remedy = "Free some, choose another place by --data.cache_dir, or do without by --data.pack_limit 0"
        raise UserError(f"the disk is full: packing the images needs {need}. {remedy}") from error
    finally:
        unfinished.unlink(missing_ok=True)


_writable = cache(partial(np.load, mmap_mode="r+"))  # maps a packed file, once in each process that decodes


def _decode_one(
    index: ImageIndex, size: int, transforms: list[nn.Module], file: Path | None, row: int
) -> tuple[int, str]:
    """Decode an image into its row of the file; returns a hash of its content and why it could not be read."""
    content = 0
    try:
        data = read_bytes(index.root / index.paths[row])
        content = content_hash(data)
        image = index.hide(decode_image(data), row)
    except UnreadableImageError as error:
        return content, str(error)
    if file is not None:
        for transform in transforms:
            image = transform(image)
        _writable(file)[row] = center_crop_resize(image, size).permute(1, 2, 0).numpy()
    return content, ""


def content_hash(data: bytes) -> int:
    """64 bits that stand for the content of a file."""
    return int.from_bytes(blake2b(data, digest_size=8).digest())


def skip_unreadable(
    index: ImageIndex, unreadable: dict[int, str], policy: Literal["error", "skip"], option: str = "--data.on_corrupt"
) -> ImageIndex:
    """Leave out the images that cannot be read (reasons by row), or name them all in a UserError."""
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
        share = f"{len(unreadable):,} of {len(index.paths):,} images in {index.root}"
        remedy = f"mend or remove what is listed above, or go on without by {option} skip"
        raise UserError(f"{share} cannot be read ({names[0]}): {remedy}", names)
    rank_zero_warn(f"skipping {len(unreadable):,} images that cannot be read: {', '.join(names[:3])}")
    return replace(index, splits=splits)


def warn_of_copies(index: ImageIndex, content: NDArray[np.uint64]) -> None:
    """Warn of files that are the same byte by byte, in two splits or under two labels."""
    order = np.argsort(content, kind="stable")
    order = order[index.splits[order] != "skip"]
    same = content[order][1:] == content[order][:-1]
    one, other = order[:-1][same], order[1:][same]
    for what, value in (("in two splits", index.splits), ("under two labels", index.labels)):
        if len(pairs := np.flatnonzero(value[one] != value[other])):
            example = f"{index.paths[one[pairs[0]]]} and {index.paths[other[pairs[0]]]}"
            remedy = f"list them with `python -m project check_data {index.root}`"
            rank_zero_warn(f"{len(pairs):,} pictures are {what}, such as {example}: {remedy}")
