"""Index of the images of a dataset as compact arrays: of a table of paths and labels, or of unlabeled images."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from project.datamodules.images.masks import Masks
from project.datamodules.path_matcher import PathMatcher
from project.datamodules.tables import DEFAULT_COLUMNS, Columns, Table, check_distinct, clean, load_table
from project.errors import UserError
from project.images import find_images, no_images
from project.interface import Split
from project.output import pluralize

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
    file: Path,
    root: Path,
    columns: Columns = DEFAULT_COLUMNS,
    class_names: list[str] | None = None,
    option: str = "--data.columns",
) -> ImageIndex:
    """Index the images listed in a CSV, TSV or Parquet file, one per row.

    Args:
        file: The table.
        root: The folder that paths are relative to.
        columns: Names of the columns. An image without a group is a group by itself.
        class_names: Classes of the trained model, some of which may have no images; by default, those of the table.
        option: The option that names the columns, for error messages.

    Raises:
        UserError: The table cannot be read, a row is invalid, or there are fewer than two classes.
    """
    names = {key: name for key, name in vars(columns).items() if name is not None}
    split_column = columns.split or "split"
    if class_names is not None:  # another dataset than the one trained on may lack its groups
        names.pop("group", None)
    optional = [split_column, *filter(None, [columns.group])]
    table = load_table(file, {name: f"{option}.{key}" for key, name in names.items()}, optional)
    labels = table.clean(columns.label)
    splits = table.clean(split_column) if split_column in table.cells else [""] * len(labels)
    paths = _match_images(table, columns, root, labels, splits)
    for note in table.notes:
        rank_zero_warn(note)
    check_distinct(file, labels)
    expected = class_names or sort_classes(set(labels))
    if len(expected) < 2:
        raise UserError(f"{file} has only one class, '{expected[0]}': a classifier needs at least two")
    label_of = {clean(name): label for label, name in enumerate(expected)}
    check_classes(file, labels, list(label_of), "the trained model")
    given = np.array([SPLIT_FOLDERS[split.lower()] if split else "" for split in splits])
    if not {"train", ""} & {*given.tolist()} and class_names is None:
        raise UserError(f"{file} has no image in the train split: set some to train, or leave the column split empty")
    groups = table.clean(columns.group) if columns.group in table.cells else None
    balance = table.clean(columns.balance) if columns.balance else None
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return ImageIndex(
        root,
        PathTable(paths[row] for row in order),
        np.array([label_of[labels[row]] for row in order]),
        given[order],
        list(expected),
        np.array([groups[row] or f"alone: {paths[row]}" for row in order]) if groups else None,
        np.array([balance[row] for row in order]) if balance else None,
    )


def _match_images(table: Table, columns: Columns, root: Path, labels: list[str], splits: list[str]) -> list[str]:
    """Return the path of each row's image relative to `root`; raise a UserError for the first invalid row."""
    written = table.cells[columns.path]
    matcher = PathMatcher(lambda: find_images(root), root, table.encoding)
    rows: dict[str, int] = {}  # by path without "./" and "//"
    paths: list[str] = []
    for row, (name, label, split) in enumerate(zip(written, labels, splits, strict=True)):
        path, problem = "", ""
        if not clean(name) or not label:
            problem = f"{name} has no label" if clean(name) else "no path"
        elif split and split.lower() not in SPLIT_FOLDERS:
            problem = f"split must be train, val, test or empty, got '{split}'"
        else:
            try:
                path = matcher.match(name)
            except UserError as error:
                raise table.error(row, str(error)) from error
            if not path:
                problem = f"no such image: {root / name}"
            elif (first := rows.setdefault(os.path.normpath(path), row)) != row:
                problem = f"{path} is listed twice, also in {table.places[first]}"
        if problem:
            raise table.error(row, problem)
        paths.append(path)
    if changed := [row for row, path in enumerate(paths) if path != written[row]]:
        example = f"{written[changed[0]]!r} is {paths[changed[0]]}"
        table.notes.append(f"{table.file}: {pluralize(len(changed), 'path')} matched to files, e.g. {example}")
    return paths


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
