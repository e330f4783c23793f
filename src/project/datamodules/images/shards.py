"""Sharded datasets: encoded images in a few large files (litdata), on disk or in an object store.

Images are JPEGs, or NumPy files if they have another depth than 8 bits or other channels than RGB or grayscale.
"""

import io
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from project.datamodules.images.facts import Facts, ImageFacts
from project.datamodules.images.index import index_image_table
from project.datamodules.images.masks import MaskMode, Masks
from project.datamodules.images.notices import describe_conversions, skip_unreadable, warn_about_duplicates
from project.datamodules.images.packed import content_hash
from project.datamodules.images.resize import resize
from project.datamodules.index import Index, StringArray
from project.datamodules.labels import LabelOptions, TargetKind, TargetOption, check_classes
from project.datamodules.parallel import parallel_map
from project.datamodules.split import complete_splits
from project.datamodules.tree import index_tree
from project.errors import UserError
from project.images import UnreadableImageError, decode, read_bytes
from project.interface import Target
from project.output import pluralize
from project.tables import DEFAULT_COLUMNS, PathColumns

INDEX, FACTS = "images.npz", "facts.npz"


def shard(
    root: Path,
    out: Path,
    short_side: int = 256,
    quality: int = 90,
    channels: int = 3,
    table: Path | None = None,
    columns: PathColumns = DEFAULT_COLUMNS,
    target: TargetOption = "auto",
    label_separator: str | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    on_corrupt: Literal["error", "skip"] = "error",
    mask_boxes: Path | None = None,
    mask_by: MaskMode = "fill",
) -> None:
    """Write a dataset as shards, to be read with `--data.root OUT` from disk or from an object store.

    The EXIF orientation is applied; EXIF and other metadata are removed. The split is fixed when shards are written.

    Args:
        root: Dataset directory, in a form that `fit` accepts.
        out: Output directory, which must not exist.
        short_side: Length to which the shorter side of larger images is resized, in pixels.
        quality: JPEG quality, 1 to 100.
        channels: Number of channels; images of others are unreadable, but RGB and grayscale are converted.
        table: CSV, TSV or Parquet file of paths (relative to `root`) and labels, used instead of class folders.
        columns: Names of its columns.
        target: What is predicted, as `data.target` of `fit`.
        label_separator: Separator of several labels in a cell of the table.
        val_fraction: Fraction of each class to split off for val if the dataset has no val split, in (0, 1).
        test_fraction: Fraction of each class to split off for test if the dataset has neither val nor test, in [0, 1).
        split_seed: Seed of the split.
        on_corrupt: How to handle unreadable images: `error` lists all of them and exits; `skip` leaves them out.
        mask_boxes: CSV of regions to mask, with columns path, left, top, right, bottom, in pixels of the upright image.
        mask_by: `fill` replaces masked regions with gray, `blur` downsamples them to 4x4 pixels.

    Raises:
        UserError: `out` exists, or the dataset is invalid.
    """
    from litdata.streaming.writer import BinaryWriter

    if out.exists():
        raise UserError(f"{out} exists: choose a new output directory")
    options = LabelOptions(target, label_separator)
    index = index_image_table(table, root, columns, options, option="--columns") if table else index_tree(root)
    if mask_boxes is not None:
        index = replace(index, masks=Masks(mask_boxes, mask_by, index.keys))
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        encode = partial(_encode, index, short_side, quality, channels)
        writer = BinaryWriter(str(unfinished), chunk_bytes="64MB")
        collected: list[ImageFacts] = []
        written = 0
        for encoded, found in parallel_map(encode, len(index.keys), "writing shards"):
            collected.append(found)
            if encoded:
                writer.add_item(written, encoded)
                written += 1
        writer.done()
        writer.merge()
        facts = Facts.collect(collected)
        if mismatches := facts.mismatches(facts.dtype()):
            row, reason = next(iter(mismatches.items()))
            example = f"{index.root / index.keys[row]} has {reason}"
            raise UserError(f"{pluralize(len(mismatches), 'image')} must be converted or removed first, e.g. {example}")
        for text in describe_conversions(facts, facts.dtype()):
            rank_zero_warn(text)
        index = skip_unreadable(index, facts.errors, on_corrupt, "--on_corrupt")
        index = complete_splits(index, val_fraction, test_fraction, split_seed)
        warn_about_duplicates(index, facts.content)
        kept = np.flatnonzero(index.splits != "skip")
        Facts.collect([collected[row] for row in kept.tolist()]).save(unfinished / FACTS)
        paths = "\0".join(index.keys[row] for row in kept.tolist())
        names: dict[str, Any] = {"paths": np.frombuffer(os.fsencode(paths), np.uint8), "names": index.names}
        np.savez(unfinished / INDEX, **names, labels=index.labels[kept], splits=index.splits[kept], kind=index.kind)
        unfinished.rename(out)
    except OSError as error:
        raise UserError(f"cannot write shards to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"{len(kept):,} images in {out}: train with --data.root {out}")


def _encode(index: Index, short_side: int, quality: int, channels: int, row: int) -> tuple[bytes, ImageFacts]:
    """Return a resized image as a JPEG or a NumPy file, empty if it is unreadable, and the facts about its file."""
    content = 0
    try:
        data = read_bytes(index.root / index.keys[row])
        content = content_hash(data)
        pixels, note = decode(data, channels)
    except UnreadableImageError as error:
        return b"", ImageFacts(content, str(error))
    tensor = index.hide(torch.from_numpy(pixels).permute(2, 0, 1), row)
    height, width = (side for side in tensor.shape[1:])
    scale = min(1, short_side / min(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    stream = io.BytesIO()
    if pixels.dtype == np.uint8 and channels in (1, 3):
        array = tensor.permute(1, 2, 0).numpy()
        image = Image.fromarray(array if channels == 3 else array[..., 0])
        if scale < 1:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        image.save(stream, "JPEG", quality=quality)
    else:
        np.save(stream, resize(tensor, height, width).permute(1, 2, 0).numpy())
    return stream.getvalue(), ImageFacts.of(content, pixels, note)


def read_shard_index(root: str, trained: Target | None) -> Index:
    """Return the index of a sharded dataset, including its splits."""
    import fsspec

    try:
        with fsspec.open(f"{root.rstrip('/')}/{INDEX}", "rb") as stream:
            arrays = np.load(io.BytesIO(stream.read()))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot read the shards at {root}: {error}") from error
    names, kind, labels = arrays["names"].tolist(), str(arrays["kind"]), arrays["labels"]
    expected = names if trained is None else list(trained.names)
    check_classes(root, names, expected, "the trained model")
    if kind == "classes":  # the model's order may be another
        labels = np.array([expected.index(name) for name in names])[labels]
    else:
        labels = labels[:, [names.index(name) for name in expected]]
    paths = StringArray(os.fsdecode(arrays["paths"].tobytes()).split("\0"))
    return Index(Path(root), paths, labels, arrays["splits"], expected, kind=cast(TargetKind, kind))


def read_shard_facts(root: str, count: int) -> Facts:
    """Return the facts about the images of a sharded dataset; shards written without them have 8-bit images."""
    import fsspec

    try:
        with fsspec.open(f"{root.rstrip('/')}/{FACTS}", "rb") as stream:
            return Facts.load(io.BytesIO(stream.read()))
    except FileNotFoundError:
        return Facts.collect([ImageFacts(dtype="uint8", height=1, width=1)] * count)


class ShardReader:
    """Reader of encoded images by row; each process opens the shards itself."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._shards: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_shards": None}

    def __call__(self, row: int) -> bytes:
        """Return the encoded image of a row."""
        if self._shards is None or self._process != os.getpid():
            from litdata import StreamingDataset

            # Batch decoding only helps sequential reads.
            self._shards, self._process = StreamingDataset(self.root, batch_decode=False), os.getpid()
        return bytes(self._shards[row])
