"""Assignment of samples to the train, val and test splits."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from numpy.typing import NDArray

from project.datamodules.index import Index
from project.datamodules.stratify import assign_parts, indicators
from project.errors import UserError
from project.interface import Split
from project.output import pluralize


def assign_splits(
    index: Index, val_fraction: float, test_fraction: float, seed: int, folds: int = 0, fold: int = 0
) -> Index:
    """Assign every sample to a split, holding out a cross-validation fold unless `folds` is 0.

    Raises:
        UserError: a group has samples in several splits (group leakage), or there are too few samples or groups.
    """
    if folds:
        index = hold_out_fold(index, fold, folds, val_fraction, seed)
    else:
        index = complete_splits(index, val_fraction, test_fraction, seed)
    if index.groups is not None:
        readable = index.splits != "skip"
        pairs = np.unique(np.stack([index.groups[readable], index.splits[readable]]), axis=1)
        names, counts = np.unique(pairs[0], return_counts=True)
        if leaking := names[counts > 1].tolist():
            splits = " and ".join(pairs[1][pairs[0] == leaking[0]].tolist())
            leak = f"group '{leaking[0]}' is in {splits}, and {len(leaking) - 1:,} more groups leak"
            fix = "assign each group to one split, or leave the column split empty"
            raise UserError(f"{index.root}: group leakage in the given splits: {leak}: {fix}")
    return index


def complete_splits(index: Index, val_fraction: float, test_fraction: float, seed: int) -> Index:
    """Assign every sample to a split: keep given splits and split off missing ones from train, stratified.

    Strata are classes, or the labels or quantiles of values of `stratify`.

    The result depends on the keys and the seed only. A dataset with val but without test gets no test split: it is
    tested on val. Groups stay together, so that the fractions are approximate.
    """
    given = set(index.splits.tolist())
    fractions: dict[Split, float] = {} if "val" in given else {"val": val_fraction, "test": test_fraction}
    if "test" in given:
        fractions.pop("test", None)
    splits = index.splits.astype("<U5")
    splits[splits == ""] = "train"
    train = np.flatnonzero(splits == "train")
    if not len(train):
        return index  # a test split only, to evaluate a trained model
    if index.kind != "classes":
        shares = {split: fraction for split, fraction in fractions.items() if fraction > 0}
        parts = _stratify(index, train, [1 - sum(shares.values()), *shares.values()], seed)
        for number, split in enumerate(shares, start=1):
            splits[train[parts == number]] = split
        missing: list[str] = [split for split in ("train", *shares) if not (splits == split).any()]
        if missing:
            unit = f"{index.unit}s" if index.groups is None else "groups"
            raise UserError(
                f"{index.root} has too few {unit} for a {missing[0]} split: add {unit}, or provide the splits"
            )
        return replace(index, splits=splits)
    if index.groups is not None:
        for split, fraction in fractions.items():
            if fraction > 0:
                pool = np.flatnonzero(splits == "train")
                most = min(len(np.unique(index.groups[pool])), np.bincount(index.labels[pool]).max())
                share = fraction * len(train) / len(pool)
                folds = max(2, min(most, round(1 / min(share, 1 - share))))
                fold = _folds(index, pool, folds, seed)
                splits[pool[fold == 0 if share <= 0.5 else fold > 0]] = split
        return replace(index, splits=splits)

    for label, name in enumerate(index.names):
        rows = train[index.labels[train] == label]
        if not len(rows):
            continue  # a class of the trained model that this dataset lacks
        remaining = sorted(rows.tolist(), key=lambda row: _draw(index.keys[row], seed))
        for split, fraction in fractions.items():
            count = max(1, round(fraction * len(rows))) if fraction > 0 else 0
            splits[remaining[:count]] = split
            remaining = remaining[count:]
        if fractions and not remaining:
            few = f"{pluralize(len(rows), index.unit)}, too few to split into train and {' and '.join(fractions)}"
            fix = f"add {index.unit}s, or provide the splits, as folders or in a column"
            raise UserError(f"class '{name}' in {index.root} has {few}: {fix}")
    return replace(index, splits=splits)


def _draw(name: str, seed: int) -> bytes:
    """Return a pseudorandom sort key that depends on the name and the seed only."""
    return hashlib.blake2b(f"{seed}:{name}".encode(errors="surrogateescape"), digest_size=8).digest()


def _stratify(index: Index, pool: NDArray[np.int64], shares: list[float], seed: int) -> NDArray[np.int64]:
    """Return the part of each row in the pool, by labels or values; groups stay together."""
    matrix = indicators(index.labels[pool], index.kind)
    if index.groups is None:
        names, unit_of = [index.keys[row] for row in pool.tolist()], np.arange(len(pool))
    else:
        unique, unit_of = np.unique(index.groups[pool], return_inverse=True)
        names = unique.tolist()
        summed = np.zeros((len(names), matrix.shape[1]))
        np.add.at(summed, unit_of, matrix)
        matrix = summed
    order = np.array(sorted(range(len(names)), key=lambda unit: _draw(names[unit], seed)))
    return assign_parts(matrix, np.bincount(unit_of, minlength=len(names)), shares, order)[unit_of]


def evaluation_split(index: Index, split: Literal["val", "test"]) -> Index:
    """Put all samples into `split`; if they have splits, those of `split`, else of the other one of val and test."""
    own = next((each for each in (split, "test", "val") if (index.splits == each).any()), None)
    splits = index.splits.astype("<U5")
    splits[(splits == own) if own else (splits != "skip")] = split
    return replace(index, splits=splits)


def split_as_trained(
    index: Index,
    split: Literal["val", "test"],
    fingerprint: str,
    draw: Callable[[Index], Index],
    is_other: bool,
) -> Index:
    """Split the samples as in training; if the model was trained on others, evaluate all, or their own split.

    Args:
        index: The samples.
        split: The split to evaluate.
        fingerprint: That of the training data.
        draw: Assigns the splits.
        is_other: Whether other data than that of the training is chosen.
    """
    own = evaluation_split(index, split)
    try:
        drawn = draw(index) if {"", "train"} & {*index.splits.tolist()} else index
        if drawn.fingerprint() == fingerprint:
            return drawn  # the training data, perhaps in another folder
    except UserError:  # too few samples to split
        if not is_other:
            raise
    if is_other:
        total, count = int(np.count_nonzero(index.splits != "skip")), len(own.rows(split))
        which = "all" if count == total else f"the {count:,} in its own test or val split"
        about = f"{pluralize(total, index.unit)}, not the data that the model was trained on"
        rank_zero_only(print)(f"data      {index.root}: {about}: {which} are evaluated")
        return own
    if (index.splits != drawn.splits).any():
        changed = f"{index.root} has changed since the model was trained, so its splits were drawn again"
        leak = f"the test split may contain training {index.unit}s"
        rank_zero_warn(f"{changed}: {leak}; to select it yourself, use DIR/test/CLASS or a column `split`")
    return drawn


def hold_out_fold(index: Index, fold: int, folds: int, val_fraction: float, seed: int) -> Index:
    """Hold out one of `folds` stratified folds of all samples outside a given test split."""
    # The fold is val if there is a test split, otherwise test. Then val is split off from the rest, so that the best
    # checkpoint is not selected on the samples that it is tested on.
    splits = index.splits.astype("<U5")
    pool = np.flatnonzero((splits != "test") & (splits != "skip"))
    splits[pool] = "train"
    held_out = "val" if "test" in splits else "test"
    splits[pool[_folds(index, pool, folds, seed) == fold]] = held_out
    return complete_splits(replace(index, splits=splits), val_fraction, 0.0, seed)


def _folds(index: Index, pool: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold number of each sample in the pool."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if index.kind != "classes":
        return _stratify(index, pool, [1 / folds] * folds, seed)
    labels = index.labels[pool]
    groups = None if index.groups is None else index.groups[pool]
    units = np.bincount(labels).min() if groups is None else len(np.unique(groups))
    if units < folds:
        unit = f"{index.unit}s in its smallest class" if groups is None else "groups"
        raise UserError(f"{index.root} has {units} {unit}, too few to split into {folds} folds")
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    numbers = np.zeros(len(pool), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # uneven groups; classes without training samples are an error later
        parts = splitter(folds, shuffle=True, random_state=seed).split(pool, labels, groups)
        for fold, (_, held_out) in enumerate(parts):
            numbers[held_out] = fold
    return numbers
