"""Carving the splits that a tree does not bring."""

import hashlib
from dataclasses import replace

import numpy as np

from project.datamodules.index import ImageIndex
from project.errors import UserError
from project.interface import Split


def complete_splits(index: ImageIndex, val_fraction: float, test_fraction: float, seed: int) -> ImageIndex:
    """Give every image a split: those that the tree names stay, missing ones are carved, class by class.

    An image's place depends on its relative path and the seed only, not on the order of files on disk. A tree with
    train and val but no test is left without: its val split serves as test.

    Args:
        index: Where an empty split means: still to be drawn.
        val_fraction: Share of each class for val, in (0, 1).
        test_fraction: Share of each class for test, in [0, 1).
        seed: Another seed, another split.

    Raises:
        UserError: a class has too few images to share out.
    """
    given = set(index.splits.tolist())
    carve: dict[Split, float] = {}
    if "val" not in given:
        carve["val"] = val_fraction
        if "test" not in given:
            carve["test"] = test_fraction
    splits = index.splits.astype("<U5")
    pool = np.flatnonzero((splits == "") | (splits == "train"))
    splits[pool] = "train"
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


def _draw(path: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{path}".encode(errors="surrogateescape"), digest_size=8).digest()
