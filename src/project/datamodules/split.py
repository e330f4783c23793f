"""Carving the splits that a tree does not bring."""

import csv
import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from project.datamodules.index import ImageIndex
from project.errors import UserError
from project.interface import Split


@dataclass(frozen=True)
class Splitting:
    """How images are shared out; the datamodule's arguments of the same names say what each is.

    Raises:
        UserError: a value out of its range.
    """

    val_fraction: float
    test_fraction: float
    split_seed: int
    folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise UserError(f"data.val_fraction must be above 0 and below 1, got {self.val_fraction}")
        if not 0 <= self.test_fraction < 1:
            raise UserError(f"data.test_fraction must be at least 0 and below 1, got {self.test_fraction}")
        if not self.folds and self.val_fraction + self.test_fraction >= 1:
            raise UserError("data.val_fraction and data.test_fraction leave nothing to train on")
        if self.folds < 0 or self.folds == 1 or not 0 <= self.fold < max(self.folds, 1):
            raise UserError(f"data.fold must be one of 0 to data.folds - 1, got fold {self.fold} of {self.folds}")

    def __call__(self, index: ImageIndex) -> ImageIndex:
        """Give every image a split; see `hold_out_fold` and `complete_splits`.

        Raises:
            UserError: a class or the groups are too few to share out, or given splits tear a group apart.
        """
        if self.folds:
            return _untorn(hold_out_fold(index, self.fold, self.folds, self.val_fraction, self.split_seed))
        return _untorn(complete_splits(index, self.val_fraction, self.test_fraction, self.split_seed))


def complete_splits(index: ImageIndex, val_fraction: float, test_fraction: float, seed: int) -> ImageIndex:
    """Give every image a split: those that the tree names stay, missing ones are carved, class by class.

    An image's place depends on its relative path and the seed only, not on the order of files on disk. A tree with
    train and val but no test is left without: its val split serves as test. Images of a group stay together; the
    shares are then as close as the groups allow.

    Args:
        index: Where an empty split means: still to be drawn.
        val_fraction: Share of each class for val, in (0, 1).
        test_fraction: Share of each class for test, in [0, 1).
        seed: Another seed, another split.

    Raises:
        UserError: a class or the groups are too few to share out.
    """
    given = set(index.splits.tolist())
    carve: dict[Split, float] = {}
    if "val" not in given:
        carve["val"] = val_fraction
        if "test" not in given:
            carve["test"] = test_fraction
    splits = index.splits.astype("<U5")
    splits[splits == ""] = "train"
    whole = np.count_nonzero(splits == "train")
    if whole == 0:
        return index  # a test split alone, for a trained model
    if index.groups is not None:
        for split, fraction in carve.items():
            if fraction > 0:
                pool = np.flatnonzero(splits == "train")
                most = min(len(np.unique(index.groups[pool])), np.bincount(index.labels[pool]).max())
                share = fraction * whole / len(pool)
                folds = max(2, min(most, round(1 / min(share, 1 - share))))
                fold = _folds(index, pool, folds, seed)
                splits[pool[fold == 0 if share <= 0.5 else fold > 0]] = split
        return replace(index, splits=splits)
    pool = np.flatnonzero(splits == "train")
    for label, name in enumerate(index.class_names):
        rows = pool[index.labels[pool] == label]
        ranked = sorted(rows.tolist(), key=lambda row: _draw(index.paths[row], seed))
        for split, fraction in carve.items():
            count = max(1, round(fraction * len(rows))) if fraction > 0 else 0
            splits[ranked[:count]] = split
            ranked = ranked[count:]
        if carve and not ranked:
            raise UserError(
                f"class '{name}' in {index.root} has {len(rows)} images, too few to share out to train"
                f" and {' and '.join(carve)}: add images, or give the splits as folders"
            )
    return replace(index, splits=splits)


def _untorn(index: ImageIndex) -> ImageIndex:
    """The index, once no group stands in two splits: that would be a leak."""
    if index.groups is not None:
        read = index.splits != "skip"
        pairs = np.unique(np.stack([index.groups[read], index.splits[read]]), axis=1)
        names, counts = np.unique(pairs[0], return_counts=True)
        if torn := names[counts > 1].tolist():
            splits = " and ".join(pairs[1][pairs[0] == torn[0]].tolist())
            raise UserError(
                f"{index.root}: the splits that are given put images of group '{torn[0]}' (data.group_column) into"
                f" {splits}, and of {len(torn) - 1:,} groups more: let a group have one split, or leave the splits out"
            )
    return index


def hold_out_fold(index: ImageIndex, fold: int, folds: int, val_fraction: float, seed: int) -> ImageIndex:
    """Hold out one of `folds` equal parts of all images but those of a given test split, stratified.

    With a test split given, the part is val; without, it is test, and val is carved from what remains, so that the
    images that choose the best checkpoint are not those that it is judged by.

    Args:
        index: The images.
        fold: The part to hold out, from 0.
        folds: How many parts, at least 2.
        val_fraction: Share of the rest that is set aside for val.
        seed: Another seed, other parts.

    Raises:
        UserError: a class or the groups are too few to share out.
    """
    splits = index.splits.astype("<U5")
    pool = np.flatnonzero((splits != "test") & (splits != "skip"))
    splits[pool] = "train"
    held_out = "val" if "test" in splits else "test"
    splits[pool[_folds(index, pool, folds, seed) == fold]] = held_out
    return complete_splits(replace(index, splits=splits), val_fraction, 0.0, seed)


def write_splits(index: ImageIndex, file: Path) -> None:
    """Write which file went to which split, as a CSV: path, class, split."""
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "class", "split"])
        for path, label, split in zip(index.paths, index.labels, index.splits, strict=True):
            writer.writerow([path, index.class_names[label], split])


def _folds(index: ImageIndex, pool: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Number of the fold that each image of the pool is held out in."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels = index.labels[pool]
    groups = None if index.groups is None else index.groups[pool]
    units = np.bincount(labels).min() if groups is None else len(np.unique(groups))
    if units < folds:
        what = "images in its smallest class" if groups is None else "groups"
        raise UserError(f"{index.root} has {units} {what}, too few to share out to {folds} parts")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    number = np.zeros(len(pool), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of uneven groups; that each class is trained on is seen later
        parts = kind(folds, shuffle=True, random_state=seed).split(pool, labels, groups)
        for fold, (_, held_out) in enumerate(parts):
            number[held_out] = fold
    return number


def _draw(path: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{path}".encode(errors="surrogateescape"), digest_size=8).digest()
