"""Index of the images of a dataset as compact arrays: of a table of paths and labels, or of unlabeled images."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from project.datamodules.images.masks import Masks
from project.datamodules.labels import DEFAULT_LABELS, LabelOptions, TargetKind, read_labels
from project.datamodules.path_matcher import PathMatcher
from project.datamodules.tables import DEFAULT_COLUMNS, Columns, Table, clean, load_table
from project.errors import UserError
from project.images import find_images, no_images
from project.interface import ClassTarget, MultilabelTarget, Split, Target, ValueTarget
from project.interface.target import SEPARATOR
from project.output import pluralize

SPLIT_FOLDERS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}  # names of split folders, case-insensitive


KINDS: dict[TargetKind, str] = {"classes": "classes", "multilabel": "labels", "values": "values"}


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
    labels: NDArray[Any]  # classes: int64 (N,), -1 if unlabeled; labels, values: float32 (N, names), NaN if unknown
    splits: NDArray[np.str_]  # (N,), "" for images without a split yet, "skip" for unreadable ones
    names: list[str]  # of the classes, labels or values; empty for unlabeled images
    groups: NDArray[np.str_] | None = None  # (N,), images of a group stay in one split
    balance: NDArray[np.str_] | None = None  # (N,), balanced sampling balances these entries along with the classes
    masks: Masks | None = None  # regions to mask when images are read
    skipped: Mapping[str, int] = field(default_factory=dict)  # number of files that are not images, by extension
    kind: TargetKind = "classes"

    def hide(self, image: Tensor, row: int) -> Tensor:
        """Mask the regions of an upright image in its original size, (C, H, W)."""
        return image if self.masks is None else self.masks.hide(image, self.paths[row])

    def rows(self, split: Split | Literal["", "skip"]) -> NDArray[np.int64]:
        """Return the rows of one split, int64, ascending."""
        return np.flatnonzero(self.splits == split)

    @property
    def class_rows(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Name and rows, ascending, of each class or label; no entry for values."""
        if self.kind == "values":
            return []
        if self.kind == "multilabel":
            return [(name, np.flatnonzero(column == 1)) for name, column in zip(self.names, self.labels.T, strict=True)]
        order = np.argsort(self.labels, kind="stable")
        edges = np.searchsorted(self.labels[order], np.arange(len(self.names) + 1))
        return [(name, order[start:end]) for name, (start, end) in zip(self.names, pairwise(edges), strict=True)]

    def strata(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the stratum of each row for balanced sampling, int64: its class, or its pair of class and entry.

        Raises:
            UserError: The samples have no classes.
        """
        if self.kind != "classes":
            raise UserError(f"data.sampling balanced needs classes, and the data has {KINDS[self.kind]}")
        if self.balance is None:
            return np.asarray(self.labels[rows])
        entry = np.unique(self.balance[rows], return_inverse=True)[1]
        return np.asarray(entry * len(self.names) + self.labels[rows], np.int64)

    def differ(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each pair of rows whether their labels contradict each other; unknown ones do not."""
        a, b = self.labels[one], self.labels[other]
        return np.asarray(a != b if a.ndim == 1 else ((a != b) & ~np.isnan(a) & ~np.isnan(b)).any(1))

    def label_text(self, row: int) -> str:
        """Return the class, the labels or the values of a row as text."""
        if self.kind == "classes":
            return self.names[int(self.labels[row])]
        if self.kind == "multilabel":
            return SEPARATOR.join(self.names[label] for label in np.flatnonzero(self.labels[row] == 1))
        return SEPARATOR.join("" if np.isnan(value) else f"{value:g}" for value in self.labels[row].tolist())

    def target(self) -> Target:
        """Return the description of the target, with counts or statistics of the train split.

        Raises:
            UserError: A class, label or value does not occur or does not vary in train.
        """
        labels = self.labels[self.rows("train")]
        reason = ": it has too few groups" if self.groups is not None else ""
        if self.kind == "classes":
            counts = np.bincount(labels, minlength=len(self.names))
            if missing := [name for name, count in zip(self.names, counts, strict=True) if not count]:
                raise UserError(f"class '{missing[0]}' in {self.root} has no images in the train split{reason}")
            return ClassTarget(self.names, counts.tolist())
        known = ~np.isnan(labels)
        unknown = int((~known).sum())
        if self.kind == "multilabel":
            present = (labels == 1).sum(0)
            if missing := [name for name, count in zip(self.names, present, strict=True) if not count]:
                fix = "remove the column, or add images with it"
                raise UserError(f"label '{missing[0]}' in {self.root} has no image in the train split{reason}: {fix}")
            return MultilabelTarget(self.names, present.tolist(), known.sum(0).tolist(), unknown=unknown)
        if empty := [name for name, count in zip(self.names, known.sum(0), strict=True) if not count]:
            raise UserError(f"value '{empty[0]}' in {self.root} is empty for all images of the train split{reason}")
        mean, std = (np.asarray(f(labels, 0, dtype=np.float64)) for f in (np.nanmean, np.nanstd))
        if constant := [name for name, spread in zip(self.names, std, strict=True) if not spread]:
            raise UserError(f"value '{constant[0]}' in {self.root} is the same for all images of the train split")
        return ValueTarget(self.names, mean.tolist(), std.tolist(), unknown=unknown)

    def fingerprint(self) -> str:
        """Return a hash of all paths, labels, splits and names, 16 hexadecimal digits."""
        digest = hashlib.blake2b(self.paths.digest(), digest_size=8)
        digest.update(self.labels.tobytes() + np.char.encode(self.splits).tobytes())
        digest.update(os.fsencode("\0".join(self.names)))
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
    options: LabelOptions = DEFAULT_LABELS,
    trained: Target | None = None,
    option: str = "--data.columns",
) -> ImageIndex:
    """Index the images listed in a CSV, TSV or Parquet file, one per row.

    Args:
        file: The table.
        root: The folder that paths are relative to.
        columns: Names of the columns. An image without a group is a group by itself.
        options: How labels are read.
        trained: Target of the trained model, of whose classes some may have no images; by default, that of the table.
        option: The option that names the columns, for error messages.

    Raises:
        UserError: The table cannot be read, a row is invalid, or there are fewer than two classes.
    """
    names = dict.fromkeys(columns.labels, f"{option}.label")
    names |= {name: f"{option}.{key}" for key, name in vars(columns).items() if name is not None and key != "label"}
    split_column = columns.split or "split"
    if trained is not None and columns.group is not None:  # another dataset than the one trained on may lack its groups
        names.pop(columns.group, None)
    optional = [split_column, *filter(None, [columns.group])]
    table = load_table(file, names, optional)
    splits = table.clean(split_column) if split_column in table.cells else [""] * len(table.places)
    paths = _match_images(table, columns, root, splits)
    labels = read_labels(table, columns, options, trained)
    for note in table.notes:
        rank_zero_warn(note)
    given = np.array([SPLIT_FOLDERS[split.lower()] if split else "" for split in splits])
    if not {"train", ""} & {*given.tolist()} and trained is None:
        raise UserError(f"{file} has no image in the train split: set some to train, or leave the column split empty")
    groups = table.clean(columns.group) if columns.group in table.cells else None
    balance = table.clean(columns.balance) if columns.balance else None
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return ImageIndex(
        root,
        PathTable(paths[row] for row in order),
        labels.values[order],
        given[order],
        labels.names,
        np.array([groups[row] or f"alone: {paths[row]}" for row in order]) if groups else None,
        np.array([balance[row] for row in order]) if balance else None,
        kind=labels.kind,
    )


def _match_images(table: Table, columns: Columns, root: Path, splits: list[str]) -> list[str]:
    """Return the path of each row's image relative to `root`; raise a UserError for the first invalid row."""
    written = table.cells[columns.path]
    matcher = PathMatcher(lambda: find_images(root), root, table.encoding)
    rows: dict[str, int] = {}  # by path without "./" and "//"
    paths: list[str] = []
    for row, (name, split) in enumerate(zip(written, splits, strict=True)):
        path, problem = "", ""
        if not clean(name):
            problem = "no path"
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
