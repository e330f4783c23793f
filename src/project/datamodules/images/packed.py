"""Validation of all images and, if they fit, decoding to one memory-mapped file of packed pixels."""

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from project.datamodules.images.augment import apply
from project.datamodules.images.facts import Facts, ImageFacts
from project.datamodules.images.resize import fit_image
from project.datamodules.index import Index
from project.datamodules.parallel import parallel_map
from project.errors import FULL, UserError
from project.files import flush_to_disk
from project.images import Pixels, UnreadableImageError, decode, read_bytes, to_dtype
from project.interface import ImageInput, PixelType

FORMAT = 3  # increased when decoding changes
UNUSED = 7 * 24 * 3600  # seconds after which unused files are deleted


class Packed(NamedTuple):
    """Result of decoding all images of an index once.

    Attributes:
        facts: Facts about the files, by row; files whose values cannot be compared with the others' are unreadable.
        dtype: The dtype that images are read in.
        pixels: Memory map, (N, height, width, channels) of this dtype; None if the images are not packed.
    """

    facts: Facts
    dtype: PixelType
    pixels: Pixels | None


def decode_all(
    index: Index,
    inputs: ImageInput,
    transforms: Sequence[nn.Module],
    limit: float,
    folder: Path,
    dtype: PixelType | None = None,
) -> Packed:
    """Decode all images once, in parallel, and cache the result in `folder` until a file changes.

    Of several processes, one decodes and the others wait; files are written atomically.

    Args:
        index: The images.
        inputs: Size, fit and channels of the images.
        transforms: Deterministic item transforms, applied before images are resized.
        limit: Size in bytes up to which the pixels are packed. Images of another depth than 8 bits are not packed if
            there are transforms, which get scaled pixels, and the scale is not known yet.
        folder: The cache.
        dtype: The dtype of a trained model; by default, the widest of the files.
    """
    key = _files_key(index)
    # Not the value range, which is known only after the first time.
    settings = f"{FORMAT} {inputs.size} {inputs.channels} {inputs.fit} {[*map(repr, transforms)]} {index.masks or ''}"
    report = folder / f"{key}_{inputs.channels}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{key}.lock"):
        facts = Facts.load(report) if report.exists() else None
        expected = dtype or (facts.dtype() if facts else _first_dtype(index, inputs))
        while True:
            work = _Work(index, inputs, list(transforms), expected)
            fits = work.bytes <= limit and (expected == "uint8" or not transforms)
            digest = blake2b(f"{settings} {expected}".encode(), digest_size=4).hexdigest()
            packed = folder / f"{key}_{digest}.npy" if fits else None
            if facts is None or (packed and not packed.exists()):
                _delete_unused(folder)
                facts = _decode(work, packed, report)
            if (found := dtype or facts.dtype()) == expected:
                break
            if packed:  # by now, images of a wider dtype were found
                packed.unlink()
            expected = found
        for file in filter(None, (report, packed)):
            file.touch()
        # Copy-on-write, as torch warns about read-only memory.
        pixels = np.load(packed, mmap_mode="c") if packed else None
    return Packed(facts._replace(errors=facts.errors | facts.mismatches(expected)), expected, pixels)


def _first_dtype(index: Index, inputs: ImageInput) -> PixelType:
    """Return the dtype of the first readable image, which usually is that of all."""
    for path in index.keys:
        with suppress(UnreadableImageError):
            return cast("PixelType", decode(read_bytes(index.root / path), inputs.channels).pixels.dtype.name)
    return "uint8"


def _delete_unused(folder: Path) -> None:
    """Delete files that were not opened for a week, as running jobs on a network drive would fail without theirs."""
    for file in folder.glob("[!.]*"):
        key = file.name.partition("_")[0].partition(".")[0]
        with suppress(Timeout, FileNotFoundError), FileLock(folder / f".{key}.lock", blocking=False):
            if file.stat().st_mtime < time.time() - UNUSED:
                file.unlink()


def _files_key(index: Index) -> str:
    """Return a hash of the path, size, modification and metadata change times of every file."""
    stats = np.zeros((len(index.keys), 3), np.int64)
    for row, path in enumerate(index.keys):
        try:
            status = os.stat(os.path.join(index.root, path))  # noqa: PTH116, PTH118 - takes a third of the time of Path
            stats[row] = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        except OSError:
            pass  # reported when the file is decoded
    root = os.fsencode(index.root.resolve())
    return blake2b(index.keys.digest() + stats.tobytes() + root, digest_size=10).hexdigest()


@dataclass(frozen=True)
class _Work:
    """Arguments of `_decode_one` that are the same for all images."""

    index: Index
    inputs: ImageInput
    transforms: list[nn.Module]
    dtype: PixelType

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.index.keys), *self.inputs.size, self.inputs.channels

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _decode(work: _Work, packed: Path | None, report: Path) -> Facts:
    unfinished = report.with_suffix(".partial")
    decode_one = partial(_decode_one, work, unfinished if packed else None)
    try:
        if packed:
            np.lib.format.open_memmap(unfinished, "w+", work.dtype, work.shape)
            if hasattr(os, "posix_fallocate"):  # writing to a memory map on a full disk kills the process
                with unfinished.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, unfinished.stat().st_size)
        title = "packing images" if packed else "checking images"
        facts = Facts.collect(parallel_map(decode_one, len(work.index.keys), title))
        if packed:
            flush_to_disk(unfinished)
            unfinished.replace(packed)
        facts.save(unfinished)
        flush_to_disk(unfinished)
        unfinished.replace(report)
    except OSError as error:
        if error.errno not in FULL:
            raise
        need = f"{work.bytes / 1e9:.2g} GB in {report.parent}"
        fix = "free some, use another --data.cache_dir, or turn packing off with --data.pack_limit 0"
        raise UserError(f"the disk is full: packing the images needs {need}: {fix}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return facts


_writable = cache(partial(np.load, mmap_mode="r+"))  # opened once per process


def _decode_one(work: _Work, file: Path | None, row: int) -> ImageFacts:
    """Decode an image, to its row in the packed file if there is one."""
    content = 0
    try:
        data = read_bytes(work.index.root / work.index.keys[row])
        content = content_hash(data)
        pixels, note = decode(data, work.inputs.channels)
    except UnreadableImageError as error:
        return ImageFacts(content, str(error))
    image = work.index.hide(torch.from_numpy(pixels).permute(2, 0, 1), row)
    if file is not None:
        with suppress(UnreadableImageError):  # integers among floats, which are reported as unreadable
            image = torch.from_numpy(to_dtype(image.numpy(), work.dtype))
            for transform in work.transforms:
                image = apply(transform, image)
            fitted = fit_image(image, work.inputs.size, work.inputs.fit)
            _writable(file)[row] = fitted.permute(1, 2, 0).numpy()
    return ImageFacts.of(content, pixels, note)


def sample_facts(index: Index, inputs: ImageInput, count: int) -> Facts:
    """Return facts about up to `count` evenly spaced images, and empty ones about the others."""
    chosen = {*np.linspace(0, len(index.keys) - 1, count).astype(int).tolist()}
    work = _Work(index, inputs, [], "uint8")
    every = range(len(index.keys))
    return Facts.collect(_decode_one(work, None, row) if row in chosen else ImageFacts() for row in every)


def content_hash(data: bytes) -> int:
    """Return a 64-bit hash of the content of a file."""
    return int.from_bytes(blake2b(data, digest_size=8).digest())
