"""Which images there are: a table of paths and labels in place of folders."""

import os
from pathlib import Path

import numpy as np

from project.datamodules.index import SPLIT_FOLDERS, ImageIndex, PathTable, check_classes
from project.errors import UserError
from project.files import read_table


def index_table(
    table: Path, root: Path, group: str | None, class_names: list[str] | None = None, balance: str | None = None
) -> ImageIndex:
    """Index the images that a CSV lists: columns path (relative to `root`) and label, and, optionally, split.

    Args:
        table: The CSV, UTF-8, with a header.
        root: The folder that the paths are relative to.
        group: The column that says which images belong together (an empty cell: it stands alone); None for none.
        class_names: The classes that a trained model knows; None to take those found.
        balance: The column that training is to see evenly besides the classes; None for none.

    Raises:
        UserError: no such file or column, a path twice, a file that is not there, an empty path or label, an
            unknown split, one class only, or classes other than the model's.
    """
    rows = read_table(table, ["path", "label", *filter(None, (group, balance))])
    if not rows:
        raise UserError(f"{table} lists no images: it needs a row for each")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        path, split = row["path"], row.get("split", "")
        if not path or not row["label"]:
            raise UserError(f"{table}, line {number}: {path + ' has no label' if path else 'no path'}")
        if split and split.lower() not in SPLIT_FOLDERS:
            raise UserError(f"{table}, line {number}: split is '{split}'; it can be train, val, test or empty")
        row["split"] = SPLIT_FOLDERS[split.lower()] if split else ""
        if os.path.normpath(path) in seen:
            raise UserError(f"{table}, line {number}: {path} is listed twice")
        if not (root / path).is_file():
            raise UserError(f"{table}, line {number}: no such image: {root / path}")
        seen.add(os.path.normpath(path))
    found = sorted({row["label"] for row in rows})
    check_classes(table, found, class_names or found, "the model was trained on")
    if len(found) < 2:
        raise UserError(f"{table} has only one class, '{found[0]}': a classifier needs at least two")
    rows.sort(key=lambda row: row["path"])
    label_of = {name: label for label, name in enumerate(class_names or found)}
    splits = np.array([row["split"] for row in rows])
    if not {"train", ""} & {*splits.tolist()} and class_names is None:
        raise UserError(f"{table} names splits, but none of them is train")
    return ImageIndex(
        root,
        PathTable(row["path"] for row in rows),
        np.array([label_of[row["label"]] for row in rows]),
        splits,
        list(label_of),
        np.array([row[group] or f"alone: {row['path']}" for row in rows]) if group else None,
        np.array([row[balance] for row in rows]) if balance else None,
    )
