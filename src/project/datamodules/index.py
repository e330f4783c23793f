"""Index of the samples of a dataset as compact arrays."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from project.datamodules.labels import TargetKind
from project.errors import UserError
from project.interface import ClassTarget, MultilabelTarget, Split, Target, ValueTarget
from project.output import SEPARATOR

if TYPE_CHECKING:
    from project.datamodules.images.masks import Masks

SPLIT_FOLDERS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}  # names of split folders, case-insensitive


KINDS: dict[TargetKind, str] = {"classes": "classes", "multilabel": "labels", "values": "values"}


class StringArray(Sequence[str]):
    """A sequence of strings in two arrays, which workers share; a list of strings would be copied page by page."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(string) for string in strings]
        self.ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)  # of each string in `characters`
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
        return os.fsdecode(self.encoded(row).tobytes())

    def encoded(self, row: int) -> NDArray[np.uint8]:
        """Return the bytes of one string, uint8 (length,)."""
        return self.characters[0 if row == 0 else self.ends[row - 1] : self.ends[row]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of bytes of each string, int64 (N,)."""
        return np.diff(self.ends, prepend=0)

    def digest(self) -> bytes:
        """Return an 8-byte hash of the strings and their order."""
        return hashlib.blake2b(self.characters.tobytes() + self.ends.tobytes(), digest_size=8).digest()


@dataclass(frozen=True)
class Index:
    """Keys, labels and splits of all samples of a dataset; those of files are sorted by path."""

    root: Path
    keys: StringArray  # of files: POSIX paths relative to the root; of texts: the texts
    labels: NDArray[Any]  # classes: int64 (N,), -1 if unlabeled; labels, values: float32 (N, names), NaN if unknown
    splits: NDArray[np.str_]  # (N,), "" for samples without a split yet, "skip" for unreadable ones
    names: list[str]  # of the classes, labels or values; empty for unlabeled samples
    groups: NDArray[np.str_] | None = None  # (N,), samples of a group stay in one split
    balance: NDArray[np.str_] | None = None  # (N,), balanced sampling balances these entries along with the classes
    masks: "Masks | None" = None  # regions to mask when images are read
    skipped: Mapping[str, int] = field(default_factory=dict)  # number of files that are not images, by extension
    kind: TargetKind = "classes"
    unit: str = "image"  # singular noun for a sample, in messages
    places: "StringArray | None" = None  # e.g. line 2, if the keys are not the places of the samples

    def hide(self, image: Tensor, row: int) -> Tensor:
        """Mask the regions of an upright image in its original size, (C, H, W)."""
        return image if self.masks is None else self.masks.hide(image, self.keys[row])

    def place(self, row: int) -> str:
        """Return where a sample comes from: its path, or the line of a table."""
        return (self.keys if self.places is None else self.places)[row]

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
                raise UserError(f"class '{missing[0]}' in {self.root} has no {self.unit}s in the train split{reason}")
            return ClassTarget(self.names, counts.tolist())
        known = ~np.isnan(labels)
        unknown = int((~known).sum())
        if self.kind == "multilabel":
            present = (labels == 1).sum(0)
            if missing := [name for name, count in zip(self.names, present, strict=True) if not count]:
                fix = f"remove the column, or add {self.unit}s with it"
                raise UserError(
                    f"label '{missing[0]}' in {self.root} has no {self.unit} in the train split{reason}: {fix}"
                )
            return MultilabelTarget(self.names, present.tolist(), known.sum(0).tolist(), unknown=unknown)
        if empty := [name for name, count in zip(self.names, known.sum(0), strict=True) if not count]:
            raise UserError(
                f"value '{empty[0]}' in {self.root} is empty for all {self.unit}s of the train split{reason}"
            )
        mean, std = (np.asarray(f(labels, 0, dtype=np.float64)) for f in (np.nanmean, np.nanstd))
        if constant := [name for name, spread in zip(self.names, std, strict=True) if not spread]:
            raise UserError(f"value '{constant[0]}' in {self.root} is the same for all {self.unit}s of the train split")
        return ValueTarget(self.names, mean.tolist(), std.tolist(), unknown=unknown)

    def fingerprint(self) -> str:
        """Return a hash of all keys, labels, splits and names, 16 hexadecimal digits."""
        digest = hashlib.blake2b(self.keys.digest(), digest_size=8)
        digest.update(self.labels.tobytes() + np.char.encode(self.splits).tobytes())
        digest.update(os.fsencode("\0".join(self.names)))
        return digest.hexdigest()


def describe_absent(index: Index, split: Split) -> str:
    """Return a sentence about the classes without samples in a split; empty if there are none, or no such split."""
    counts = {name: np.count_nonzero(index.splits[rows] == split) for name, rows in index.class_rows}
    absent = [repr(name) for name, count in counts.items() if not count]
    if len(absent) in (0, len(counts)):
        return ""
    shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5:,} more" if len(absent) > 5 else "")
    one, several = {"classes": ("class", "classes"), "multilabel": ("label", "labels")}[index.kind]
    others = f"the other {len(counts) - len(absent):,} {several}"
    return f"{split} has no {index.unit}s of {one} {shown}: metrics are of {others}"


def check_folder(root: Path) -> Path:
    """Return `root`; raise a UserError unless it is a folder."""
    if not root.is_dir():
        raise UserError(f"not a folder: {root}" if root.exists() else f"no such folder: {root}")
    return root


def normalize_name(name: str) -> str:
    """Return a class name in Unicode form NFC: file systems and editors differ in how they write accents."""
    return unicodedata.normalize("NFC", name)
