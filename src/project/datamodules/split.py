"""Carving the splits that a tree does not bring."""

import hashlib
import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from project.datamodules.index import ImageIndex
from project.errors import UserError
from project.interface import Split


def draw_splits(
    index: ImageIndex, val_fraction: float, test_fraction: float, seed: int, folds: int = 0, fold: int = 0
) -> ImageIndex:
    """Give every image a split, by folds if there are any; a group in two splits, which would be a leak, is refused."""
    if folds:
        index = hold_out_fold(index, fold, folds, val_fraction, seed)
    else:
        index = complete_splits(index, val_fraction, test_fraction, seed)
    if index.groups is not None:
        read = index.splits != "skip"
        pairs = np.unique(np.stack([index.groups[read], index.splits[read]]), axis=1)
        names, counts = np.unique(pairs[0], return_counts=True)
        if torn := names[counts > 1].tolist():
            splits = " and ".join(pairs[1][pairs[0] == torn[0]].tolist())
            leak = f"put images of group '{torn[0]}' (data.group_column) into {splits}, and of {len(torn) - 1:,} groups"
            remedy = "let a group have one split, or leave the splits out"
            raise UserError(f"{index.root}: the splits that are given {leak} more: {remedy}")
    return index


def complete_splits(index: ImageIndex, val_fraction: float, test_fraction: float, seed: int) -> ImageIndex:
    """Give every image a split: those that the tree names stay, missing ones are carved, class by class.

    An image's place depends on its relative path and the seed only. A tree with val but no test is left without: its
    val split serves as test. Images of a group stay together; the shares are then as close as the groups allow.
    """
    given = set(index.splits.tolist())
    carve: dict[Split, float] = {} if "val" in given else {"val": val_fraction, "test": test_fraction}
    if "test" in given:
        carve.pop("test", None)
    splits = index.splits.astype("<U5")
    splits[splits == ""] = "train"
    whole = np.flatnonzero(splits == "train")
    if not len(whole):
        return index  # a test split alone, for a trained model
    if index.groups is not None:
        for split, fraction in carve.items():
            if fraction > 0:
                pool = np.flatnonzero(splits == "train")
                most = min(len(np.unique(index.groups[pool])), np.bincount(index.labels[pool]).max())
                share = fraction * len(whole) / len(pool)
                folds = max(2, min(most, round(1 / min(share, 1 - share))))
                fold = _folds(index, pool, folds, seed)
                splits[pool[fold == 0 if share <= 0.5 else fold > 0]] = split
        return replace(index, splits=splits)

    def draw(row: int) -> bytes:
        text = f"{seed}:{index.paths[row]}".encode(errors="surrogateescape")
        return hashlib.blake2b(text, digest_size=8).digest()

    for label, name in enumerate(index.class_names):
        rows = whole[index.labels[whole] == label]
        ranked = sorted(rows.tolist(), key=draw)
        for split, fraction in carve.items():
            count = max(1, round(fraction * len(rows))) if fraction > 0 else 0
            splits[ranked[:count]] = split
            ranked = ranked[count:]
        if carve and not ranked:
            few = f"{len(rows)} images, too few to share out to train and {' and '.join(carve)}"
            raise UserError(f"class '{name}' in {index.root} has {few}: add images, or give the splits as folders")
    return replace(index, splits=splits)


def hold_out_fold(index: ImageIndex, fold: int, folds: int, val_fraction: float, seed: int) -> ImageIndex:
    """Hold out one of `folds` equal parts of all images but those of a given test split, stratified."""
    # With a test split given, the part is val; without, it is test, and val is carved from what remains, so that the
    # images that choose the best checkpoint are not those that it is judged by.
    splits = index.splits.astype("<U5")
    pool = np.flatnonzero((splits != "test") & (splits != "skip"))
    splits[pool] = "train"
    held_out = "val" if "test" in splits else "test"
    splits[pool[_folds(index, pool, folds, seed) == fold]] = held_out
    return complete_splits(replace(index, splits=splits), val_fraction, 0.0, seed)


def _folds(index: ImageIndex, pool: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the number of the fold that each image of the pool is held out in."""
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
