"""Validation of all images and, if they fit, decoding to one memory-mapped file of packed pixels."""

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
from project.datamodules.parallel import parallel_map
from project.errors import FULL, UserError
from project.files import flush_to_disk
from project.images import Pixels, UnreadableImageError, read_bytes
from project.output import pluralize

FORMAT = 2  # increased when decoding changes
UNUSED = 7 * 24 * 3600  # seconds after which unused files are deleted


class Decoded(NamedTuple):
    """Result of decoding all images of an index."""

    unreadable: dict[int, str]  # errors by row
    content: NDArray[np.uint64]  # (N,), hash of the content of each file
    pixels: Pixels | None  # memory map, uint8 (N, size, size, 3); None if the images are not packed


def decode_all(index: ImageIndex, size: int, transforms: Sequence[nn.Module], pack: bool, folder: Path) -> Decoded:
    """Decode all images once, in parallel, and cache the result in `folder` until a file changes.

    Of several processes, one decodes and the others wait; files are written atomically. Deterministic transforms are
    applied before images are resized to (size, size). Pixels are packed if `pack` is set; otherwise, pixels packed
    before are used.
    """
    key = _files_key(index)
    pixels_key = f"{FORMAT} {size} {[repr(transform) for transform in transforms]} {index.masks or ''}".encode()
    report, packed = folder / f"{key}.csv", folder / f"{key}_{blake2b(pixels_key, digest_size=4).hexdigest()}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{key}.lock"):
        if not report.exists() or (pack and not packed.exists()):
            _delete_unused(folder)
            _decode(index, size, transforms, packed if pack else None, report)
        for file in (report, packed):
            if file.exists():
                file.touch()
        with report.open(newline="", encoding="utf-8") as stream:
            results = list(csv.reader(stream))
        # Copy-on-write, as torch warns about read-only memory.
        pixels = np.load(packed, mmap_mode="c") if packed.exists() else None
    unreadable = {row: reason for row, (_, reason) in enumerate(results) if reason}
    return Decoded(unreadable, np.array([int(content, 16) for content, _ in results], dtype=np.uint64), pixels)


def _delete_unused(folder: Path) -> None:
    """Delete files that were not opened for a week, as running jobs on a network drive would fail without theirs."""
    for file in folder.glob("[!.]*"):
        key = file.name.partition("_")[0].partition(".")[0]
        with suppress(Timeout, FileNotFoundError), FileLock(folder / f".{key}.lock", blocking=False):
            if file.stat().st_mtime < time.time() - UNUSED:
                file.unlink()


def _files_key(index: ImageIndex) -> str:
    """Return a hash of the path, size, modification and metadata change times of every file."""
    stats = np.zeros((len(index.paths), 3), np.int64)
    for row, path in enumerate(index.paths):
        try:
            status = os.stat(os.path.join(index.root, path))  # noqa: PTH116, PTH118 - takes a third of the time of Path
            stats[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        except OSError:
            pass  # reported when the file is decoded
    root = os.fsencode(index.root.resolve())
    return blake2b(index.paths.digest() + stats.tobytes() + root, digest_size=10).hexdigest()


def _decode(index: ImageIndex, size: int, transforms: Sequence[nn.Module], packed: Path | None, report: Path) -> None:
    count, unfinished = len(index.paths), report.with_suffix(".partial")
    work = partial(_decode_one, index, size, list(transforms), unfinished if packed else None)
    try:
        if packed:
            np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, size, size, 3))
            if hasattr(os, "posix_fallocate"):  # writing to a memory map on a full disk kills the process
                with unfinished.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, unfinished.stat().st_size)
        results = list(parallel_map(work, count, "packing images" if packed else "checking images"))
        if packed:
            flush_to_disk(unfinished)
            unfinished.replace(packed)
        with unfinished.open("w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows((f"{content:x}", reason) for content, reason in results)
        flush_to_disk(unfinished)
        unfinished.replace(report)
    except OSError as error:
        if error.errno not in FULL:
            raise
        need = f"{count * size * size * 3 / 1e9:.2g} GB in {report.parent}"
        fix = "free some, use another --data.cache_dir, or turn packing off with --data.pack_limit 0"
        raise UserError(f"the disk is full: packing the images needs {need}: {fix}") from error
    finally:
        unfinished.unlink(missing_ok=True)


_writable = cache(partial(np.load, mmap_mode="r+"))  # opened once per process


def _decode_one(
    index: ImageIndex, size: int, transforms: list[nn.Module], file: Path | None, row: int
) -> tuple[int, str]:
    """Decode an image to its row in the packed file; return a hash of its content and the error, if any."""
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
    """Return a 64-bit hash of the content of a file."""
    return int.from_bytes(blake2b(data, digest_size=8).digest())


def skip_unreadable(
    index: ImageIndex, unreadable: dict[int, str], policy: Literal["error", "skip"], option: str = "--data.on_corrupt"
) -> ImageIndex:
    """Move unreadable images (errors by row) to the split "skip", or raise a UserError that lists them all."""
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
        fix = f"fix or remove the files listed above, or skip them with {option} skip"
        raise UserError(f"{share} cannot be read ({names[0]}): {fix}", names)
    rank_zero_warn(f"skipping {len(unreadable):,} unreadable images: {', '.join(names[:3])}")
    return replace(index, splits=splits)


def warn_about_duplicates(index: ImageIndex, content: NDArray[np.uint64]) -> None:
    """Warn about identical files across splits (data leakage) or with conflicting labels."""
    order = np.argsort(content, kind="stable")
    order = order[index.splits[order] != "skip"]
    same = content[order][1:] == content[order][:-1]
    one, other = order[:-1][same], order[1:][same]
    for problem, value in (("across splits", index.splits), ("with conflicting labels", index.labels)):
        if len(pairs := np.flatnonzero(value[one] != value[other])):
            example = f"{index.paths[one[pairs[0]]]} and {index.paths[other[pairs[0]]]}"
            fix = f"list them with `train.py check_data {index.root}`"
            rank_zero_warn(f"{pluralize(len(pairs), 'exact duplicate')} {problem}, e.g. {example}: {fix}")
