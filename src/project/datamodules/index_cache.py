"""Remembering the index of a large tree: a second start looks at its folders, not at its files."""

import os
import time
from hashlib import blake2b
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from project.datamodules.index import ImageIndex, PathTable, index_tree
from project.files import whole

LARGE = 10_000
"""Smaller trees are scanned anew: that takes no time."""
SETTLED = 10**9
"""Nanoseconds that a folder must have been at rest before the scan: what is still being written to is not kept."""


def cached_index_tree(root: Path, class_names: list[str] | None, folder: Path) -> ImageIndex:
    """As `index_tree`, but kept in `folder` until an image is added, removed or renamed anywhere in the tree.

    Each of these changes the time of change of the folder it happens in; a file that is overwritten does not, and is
    still noticed where its content matters, by `decode_all`.
    """
    file = folder / f"{blake2b(os.fsencode(root.resolve()), digest_size=10).hexdigest()}.npz"
    if (index := _load(file, root)) and (class_names is None or class_names == index.class_names):
        return index
    visited: list[str] = []
    started = time.time_ns()
    index = index_tree(root, class_names, visited)
    times = _times(visited)
    if len(index.paths) >= LARGE and times and max(times) < started - SETTLED:
        _save(file, index, visited, times)
    return index


def _times(folders: list[str]) -> list[int]:
    try:
        return [os.stat(folder).st_mtime_ns for folder in folders]  # noqa: PTH116
    except OSError:
        return []


def _load(file: Path, root: Path) -> ImageIndex | None:
    try:
        with np.load(file) as kept:
            if _times([str(folder) for folder in kept["folders"]]) != kept["times"].tolist():
                return None
            paths = PathTable.from_arrays(kept["characters"], kept["ends"])
            return ImageIndex(root, paths, kept["labels"], kept["splits"], kept["class_names"].tolist())
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):  # not there, or damaged
        return None


def _save(file: Path, index: ImageIndex, folders: list[str], times: list[int]) -> None:
    characters, ends = index.paths.arrays()
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            folders=np.array(folders),
            times=np.array(times),
            characters=characters,
            ends=ends,
            labels=index.labels,
            splits=index.splits,
            class_names=np.array(index.class_names),
        )
