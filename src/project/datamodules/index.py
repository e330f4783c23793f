"""Index of the images of a dataset as compact arrays: of a CSV of paths and labels, or of unlabeled images."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from project.datamodules.images.masks import Masks
from project.errors import UserError
from project.files import read_table
from project.images import find_images, no_images
from project.interface import Split

SPLIT_FOLDERS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}  # names of split folders, case-insensitive


class PathTable(Sequence[str]):
    """A sequence of paths in two arrays, which workers share; a list of strings would be copied page by page."""

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self.ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)  # of each path in `characters`
        self.characters = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        start = 0 if row == 0 else self.ends[row - 1]
        return os.fsdecode(self.characters[start : self.ends[row]].tobytes())

    def digest(self) -> bytes:
        """Return an 8-byte hash of the paths and their order."""
        return hashlib.blake2b(self.characters.tobytes() + self.ends.tobytes(), digest_size=8).digest()


@dataclass(frozen=True)
class ImageIndex:
    """Paths, labels and splits of all images in a dataset, sorted by relative path."""

    root: Path
    paths: PathTable  # POSIX, relative to the root
    labels: NDArray[np.int64]  # (N,), -1 for unlabeled images
    splits: NDArray[np.str_]  # (N,), "" for images without a split yet, "skip" for unreadable ones
    class_names: list[str]  # the position is the label
    groups: NDArray[np.str_] | None = None  # (N,), images of a group stay in one split
    balance: NDArray[np.str_] | None = None  # (N,), balanced sampling balances these entries along with the classes
    masks: Masks | None = None  # regions to mask when images are read
    skipped: Mapping[str, int] = field(default_factory=dict)  # number of files that are not images, by extension

    def hide(self, image: Tensor, row: int) -> Tensor:
        """Mask the regions of an upright image in its original size, (C, H, W)."""
        return image if self.masks is None else self.masks.hide(image, self.paths[row])

    def rows(self, split: Split | Literal["", "skip"]) -> NDArray[np.int64]:
        """Return the rows of one split, int64, ascending."""
        return np.flatnonzero(self.splits == split)

    def strata(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the stratum of each row for balanced sampling, int64: its class, or its pair of class and entry."""
        if self.balance is None:
            return self.labels[rows]
        entry = np.unique(self.balance[rows], return_inverse=True)[1]
        return np.asarray(entry, np.int64) * len(self.class_names) + self.labels[rows]

    def fingerprint(self) -> str:
        """Return a hash of all paths, labels, splits and class names, 16 hexadecimal digits."""
        digest = hashlib.blake2b(self.paths.digest(), digest_size=8)
        digest.update(self.labels.tobytes() + np.char.encode(self.splits).tobytes())
        digest.update(os.fsencode("\0".join(self.class_names)))
        return digest.hexdigest()


def index_unlabeled(root: Path) -> ImageIndex:
    """Index all images below a folder, or a single image file, without labels.

    Raises:
        UserError: there are no images.
    """
    skipped: Counter[str] = Counter()
    if root.is_file():
        root, paths = root.parent, [root.name]
    else:
        paths = sorted(find_images(check_folder(root), skipped=skipped))
    if not paths:
        raise no_images(root, skipped)
    labels, splits = np.full(len(paths), -1), np.full(len(paths), "")
    return ImageIndex(root, PathTable(paths), labels, splits, [], skipped=skipped)


def index_table(
    table: Path, root: Path, group: str | None, class_names: list[str] | None = None, balance: str | None = None
) -> ImageIndex:
    """Index the images listed in a CSV with columns path (relative to `root`), label and, optionally, split.

    Images with the same entry in column `group` stay in one split; an empty entry is a group by itself. The entries of
    column `balance` are balanced along with the classes.
    """
    rows = read_table(table, ["path", "label", *filter(None, (group, balance))])
    if not rows:
        raise UserError(f"{table} lists no images: add one row per image")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        path, split, problem = row["path"], row.get("split", ""), ""
        if not path or not row["label"]:
            problem = f"{path} has no label" if path else "no path"
        elif split and split.lower() not in SPLIT_FOLDERS:
            problem = f"split must be train, val, test or empty, got '{split}'"
        elif (normalized := os.path.normpath(path)) in seen:
            problem = f"{path} is listed twice"
        elif not (root / path).is_file():
            problem = f"no such image: {root / path}"
        if problem:
            raise UserError(f"{table}, line {number}: {problem}")
        row["split"] = SPLIT_FOLDERS[split.lower()] if split else ""
        seen.add(normalized)
    names = sorted({row["label"] for row in rows})
    check_classes(table, names, class_names or names, "the trained model")
    if len(names) < 2:
        raise UserError(f"{table} has only one class, '{names[0]}': a classifier needs at least two")
    rows.sort(key=lambda row: row["path"])
    label_of = {name: label for label, name in enumerate(class_names or names)}
    splits = np.array([row["split"] for row in rows])
    if not {"train", ""} & {*splits.tolist()} and class_names is None:
        raise UserError(f"{table} has no image in the train split: set some to train, or leave the column split empty")
    return ImageIndex(
        root,
        PathTable(row["path"] for row in rows),
        np.array([label_of[row["label"]] for row in rows]),
        splits,
        list(label_of),
        np.array([row[group] or f"alone: {row['path']}" for row in rows]) if group else None,
        np.array([row[balance] for row in rows]) if balance else None,
    )


def check_folder(root: Path) -> Path:
    """Return `root`; raise a UserError unless it is a folder."""
    if not root.is_dir():
        raise UserError(f"not a folder: {root}" if root.exists() else f"no such folder: {root}")
    return root


def normalize_name(name: str) -> str:
    """Return a class name in Unicode form NFC: file systems and editors differ in how they write accents."""
    return unicodedata.normalize("NFC", name)


def sort_classes(names: Iterable[str]) -> list[str]:
    """Return class names in order: by number if all are integers (2 before 10), otherwise by text."""
    ordered = sorted(names)
    return sorted(ordered, key=int) if all(name.removeprefix("-").isdecimal() for name in ordered) else ordered


def check_classes(location: Path | str, names: Iterable[str], expected: Sequence[str], source: str) -> None:
    """Raise a UserError that lists the classes among `names` that are not among those expected by `source`."""
    if extra := sorted(set(names) - set(expected)):
        raise UserError(f"{location} has class {', '.join(map(repr, extra))}, which {source} does not have")
