"""Sets too large to hold as pixels: a few large files of JPEGs (litdata), on a disk or in an object store."""

import io
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from project.datamodules.images.decode import decode_image
from project.datamodules.images.masks import HideBy, Masks
from project.datamodules.images.packed import content_hash, skip_unreadable, warn_of_copies
from project.datamodules.index import ImageIndex, PathTable, check_classes, index_table, index_tree
from project.datamodules.parallel import each
from project.datamodules.split import complete_splits
from project.errors import UserError
from project.images import UnreadableImageError, read_bytes

INDEX = "images.npz"


def shard(
    root: Path,
    out: Path,
    short_side: int = 256,
    quality: int = 90,
    labels: Path | None = None,
    group_column: str | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    on_corrupt: Literal["error", "skip"] = "error",
    mask_boxes: Path | None = None,
    mask_by: HideBy = "fill",
) -> None:
    """Write images as shards, which `--data.root OUT` then reads; copy OUT to an object store as it is if you like.

    What of EXIF and other metadata a file had stays behind; the orientation is applied.

    Args:
        root: ROOT/CLASS/IMAGE or ROOT/{train,val,test}/CLASS/IMAGE.
        out: A new folder.
        short_side: Larger images are brought to this short side, in pixels.
        quality: JPEG quality, 1 to 100.
        labels: A CSV of path and label in place of class folders, with paths relative to `root`.
        group_column: A column of that CSV: images with the same entry stay in one split.
        val_fraction: As of the datamodule; the split is fixed here.
        test_fraction: As of the datamodule.
        split_seed: As of the datamodule.
        on_corrupt: As of the datamodule.
        mask_boxes: As of the datamodule.
        mask_by: As of the datamodule.

    Raises:
        UserError: `out` exists; or as of the datamodule.
    """
    from litdata.streaming.writer import BinaryWriter

    if out.exists():
        raise UserError(f"{out} exists: shards are written to a new folder")
    index = index_table(labels, root, group_column) if labels else index_tree(root)
    if mask_boxes is not None:
        index = replace(index, masks=Masks(mask_boxes, mask_by, index.paths))
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        encode = partial(_encode, index, short_side, quality)
        writer = BinaryWriter(str(unfinished), chunk_bytes="64MB")
        unreadable: dict[int, str] = {}
        content = np.zeros(len(index.paths), np.uint64)
        for row, (jpeg, problem, content[row]) in enumerate(each(encode, len(index.paths), "writing shards")):
            if problem:
                unreadable[row] = problem
            else:
                writer.add_item(row - len(unreadable), jpeg)
        writer.done()
        writer.merge()
        index = skip_unreadable(index, unreadable, on_corrupt, "--on_corrupt")
        index = complete_splits(index, val_fraction, test_fraction, split_seed)
        warn_of_copies(index, content)
        kept = np.flatnonzero(index.splits != "skip")
        paths = "\0".join(index.paths[row] for row in kept.tolist())
        found: dict[str, Any] = {"paths": np.frombuffer(os.fsencode(paths), np.uint8), "class_names": index.class_names}
        np.savez(unfinished / INDEX, **found, labels=index.labels[kept], splits=index.splits[kept])
        unfinished.rename(out)
    except OSError as error:
        raise UserError(f"cannot write shards to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"{len(kept):,} images in {out}: train with --data.root {out}")


def _encode(index: ImageIndex, short_side: int, quality: int, row: int) -> tuple[bytes, str, int]:
    """Return an image as a JPEG of the wanted size, why it cannot be read, and a hash of its file."""
    try:
        data = read_bytes(index.root / index.paths[row])
        pixels = index.hide(decode_image(data), row)
    except UnreadableImageError as error:
        return b"", str(error), 0
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if (scale := short_side / min(image.size)) < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue(), "", content_hash(data)


def read_shard_index(root: str, class_names: list[str] | None) -> ImageIndex:
    """Return the index of a sharded set, whose splits are fixed."""
    import fsspec

    try:
        with fsspec.open(f"{root.rstrip('/')}/{INDEX}", "rb") as stream:
            found = np.load(io.BytesIO(stream.read()))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot read the shards at {root}: {error}") from error
    names = found["class_names"].tolist()
    check_classes(Path(root), names, class_names or names, "the model was trained on")
    paths = os.fsdecode(found["paths"].tobytes()).split("\0")
    return ImageIndex(Path(root), PathTable(paths), found["labels"], found["splits"], names)


class ShardReader:
    """The encoded image at a row of a sharded set; each process opens the shards for itself."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._shards: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_shards": None}

    def __call__(self, row: int) -> bytes:
        """The bytes of a JPEG."""
        if self._shards is None or self._process != os.getpid():
            from litdata import StreamingDataset

            # Decoding ahead pays for reading in order only: our order is another.
            self._shards, self._process = StreamingDataset(self.root, batch_decode=False), os.getpid()
        return bytes(self._shards[row])
