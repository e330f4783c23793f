"""Where images come from: a folder, whose index is remembered, a table, shards, or a data set by name."""

import os
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from project.datamodules.images.builders import DatasetBuilder
from project.datamodules.images.shards import INDEX, ShardReader, read_shard_index
from project.datamodules.index import ImageIndex, PathTable, index_table, index_tree
from project.errors import UserError
from project.files import atomic_write

LARGE = 10_000  # smaller trees are scanned anew: that takes no time
SETTLED = 10**9  # ns that a folder must have been at rest before the scan: what is still being written to is not kept


@dataclass(frozen=True)
class Origin:
    """The images that the datamodule's arguments of the same names mean."""

    root: str | None
    labels: str | None
    group_column: str | None
    source: DatasetBuilder | None
    cache_dir: Path
    balance_column: str | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether the images lie in shards, which were checked and split when they were written."""
        return self.root is not None and ("://" in self.root or Path(self.root, INDEX).is_file())

    def prepare(self) -> Path:
        """Return the folder that paths are relative to; a data set by name is written if it is not there."""
        if self.root is not None:
            return Path(self.root)
        if self.labels is not None:
            return Path(self.labels).parent
        if self.source is None:
            raise UserError("no images: give --data.root DIR, or a data set by name with --data.source Digits")
        return self.source.prepare(self.cache_dir)

    def index(self, class_names: list[str] | None) -> ImageIndex:
        """Index every labeled image, by the classes that a trained model knows, or those found where it is None."""
        folder = self.prepare()
        if self.is_sharded:
            return read_shard_index(str(self.root), class_names)
        if self.labels is not None:
            return index_table(Path(self.labels), folder, self.group_column, class_names, self.balance_column)
        return cached_index_tree(folder, class_names, self.cache_dir / "index")

    def reader(self) -> ShardReader | None:
        """Return what gives the encoded image at a row of the index, where that is not its file."""
        return ShardReader(str(self.root)) if self.is_sharded else None


def cached_index_tree(root: Path, class_names: list[str] | None, folder: Path) -> ImageIndex:
    """As `index_tree`, but kept in `folder` until an image is added, removed or renamed anywhere in the tree."""
    # Each of these changes the time of the folder it happens in. An overwritten file does not: `decode_all` notices it.
    file = folder / f"{blake2b(os.fsencode(root.resolve()), digest_size=10).hexdigest()}.npz"
    if (index := _load(file, root)) and (class_names is None or class_names == index.class_names):
        return index
    visited: list[str] = []
    started = time.time_ns()
    index = index_tree(root, class_names, visited)
    times = _times(visited)
    if len(index.paths) >= LARGE and times and max(times) < started - SETTLED:
        folder.mkdir(parents=True, exist_ok=True)
        kept: dict[str, Any] = {"folders": visited, "times": times, **vars(index.paths)}
        kept |= {"labels": index.labels, "splits": index.splits, "class_names": index.class_names}
        with atomic_write(file) as partial, partial.open("wb") as stream:
            np.savez(stream, **kept)
    return index


def _times(folders: list[str]) -> list[int]:
    try:
        return [os.stat(folder).st_mtime_ns for folder in folders]  # noqa: PTH116
    except OSError:
        return []


def _load(file: Path, root: Path) -> ImageIndex | None:
    try:
        with np.load(file) as kept:
            if _times(kept["folders"].tolist()) != kept["times"].tolist():
                return None
            paths = PathTable(())
            paths.characters, paths.ends = kept["characters"], kept["ends"]
            return ImageIndex(root, paths, kept["labels"], kept["splits"], kept["class_names"].tolist())
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):  # not there, or damaged
        return None
