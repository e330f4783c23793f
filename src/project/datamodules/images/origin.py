"""Source of the images: a folder tree, whose index is cached, a table, shards or a built-in dataset."""

import os
import time
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from project.datamodules.builder import DatasetBuilder
from project.datamodules.images.index import index_image_table
from project.datamodules.images.shards import INDEX, ShardReader, read_shard_index
from project.datamodules.index import Index, StringArray
from project.datamodules.labels import DEFAULT_LABELS, LabelOptions, kind_of, number
from project.datamodules.tree import index_tree
from project.errors import UserError
from project.files import atomic_write
from project.interface import ClassTarget, Target
from project.tables import PathColumns

LARGE = 10_000  # images; indexes of smaller trees are not cached, as scanning them is fast
SETTLED = 10**9  # ns without changes before the index of a tree is cached, so that no unfinished tree is


@dataclass(frozen=True)
class Origin:
    """The source selected by the datamodule's arguments of the same names."""

    root: str | None
    table: str | None
    columns: PathColumns
    source: DatasetBuilder | None
    cache_dir: Path
    options: LabelOptions = DEFAULT_LABELS

    @property
    def is_sharded(self) -> bool:
        """True if the images are in shards, which are validated and split when they are written."""
        return self.root is not None and ("://" in self.root or Path(self.root, INDEX).is_file())

    def prepare(self) -> Path:
        """Return the dataset directory; write a built-in dataset first if it does not exist."""
        if self.root is not None:
            return Path(self.root)
        if self.table is not None:
            return Path(self.table).parent
        if self.source is None:
            raise UserError("no images: give --data.root DIR, or a built-in dataset with --data.source Digits")
        return self.source.prepare(self.cache_dir)

    def index(self, trained: Target | None) -> Index:
        """Index all labeled images.

        Args:
            trained: Target of the trained model; None takes that of the dataset.
        """
        folder = self.prepare()
        if self.is_sharded:
            return read_shard_index(str(self.root), trained)
        table = self.table
        if self.root is None and table is None and self.source is not None and self.source.table:
            table = str(folder / self.source.table)
        if table is not None:
            return index_image_table(Path(table), folder, self.columns, self.options, trained)
        kind = kind_of(trained) if trained else self.options.target
        if kind == "multilabel":
            fix = "list the images and their labels in a table, --data.table FILE"
            raise UserError(f"{folder} has one folder for each image, but several labels are to be predicted: {fix}")
        class_names = trained.names if isinstance(trained, ClassTarget) else None
        index = cached_index_tree(folder, class_names, self.cache_dir / "index")
        return numbers_of_folders(index) if kind == "values" else index

    def reader(self) -> ShardReader | None:
        """Return the reader of encoded images by row; None if images are files."""
        return ShardReader(str(self.root)) if self.is_sharded else None


def numbers_of_folders(index: Index) -> Index:
    """Return an index whose values are the names of the class folders."""
    found = [number(name) for name in index.names]
    if None in found:
        name = index.names[found.index(None)]
        raise UserError(f"{index.root}: the folder '{name}' is not named by a number, and data.target is values")
    labels = np.array(found, np.float32)[index.labels][:, None]
    return replace(index, labels=labels, names=["value"], kind="values")


def cached_index_tree(root: Path, class_names: list[str] | None, folder: Path) -> Index:
    """Index a tree like `index_tree`; cache the index in `folder` until an image is added, removed or renamed."""
    # These change the modification time of a folder. Overwriting a file does not, but `decode_all` detects it.
    file = folder / f"{blake2b(os.fsencode(root.resolve()), digest_size=10).hexdigest()}.npz"
    if (index := _load(file, root)) and (class_names is None or class_names == index.names):
        return index
    visited: list[str] = []
    started = time.time_ns()
    index = index_tree(root, class_names, visited)
    times = _times(visited)
    settled = times and max(times) < started - SETTLED
    if len(index.keys) >= LARGE and settled and class_names is None:  # the model's classes may be others
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"folders": visited, "times": times, **vars(index.keys)}
        arrays |= {"labels": index.labels, "splits": index.splits, "names": index.names}
        arrays |= {"skipped": list(index.skipped), "skipped_counts": list(index.skipped.values())}
        with atomic_write(file) as partial, partial.open("wb") as stream:
            np.savez(stream, **arrays)
    return index


def _times(folders: list[str]) -> list[int]:
    try:
        return [os.stat(folder).st_mtime_ns for folder in folders]  # noqa: PTH116
    except OSError:
        return []


def _load(file: Path, root: Path) -> Index | None:
    try:
        with np.load(file) as arrays:
            if _times(arrays["folders"].tolist()) != arrays["times"].tolist():
                return None
            paths = StringArray(())
            paths.characters, paths.ends = arrays["characters"], arrays["ends"]
            skipped = dict(zip(arrays["skipped"].tolist(), arrays["skipped_counts"].tolist(), strict=True))
            names = arrays["names"].tolist()
            return Index(root, paths, arrays["labels"], arrays["splits"], names, skipped=skipped)
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):  # missing or damaged
        return None
