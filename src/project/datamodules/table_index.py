"""Index of a table of samples."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from project.datamodules.index import SPLIT_FOLDERS, Index, StringArray
from project.datamodules.labels import DEFAULT_LABELS, LabelOptions, read_labels
from project.errors import UserError
from project.interface import Target
from project.tables import Columns, Table, load_table

ReadKeys = Callable[[Table], Sequence[str]]
"""Returns the key of each row of a table, see `Index.keys`; raises a UserError for the first invalid one."""


def index_table(
    file: Path,
    root: Path,
    columns: Columns,
    read_keys: ReadKeys,
    unit: str,
    options: LabelOptions = DEFAULT_LABELS,
    trained: Target | None = None,
    option: str = "--data.columns",
) -> Index:
    """Index the samples listed in a table, one per row.

    Args:
        file: The table.
        root: The folder of the dataset.
        columns: Names of the columns. A sample without a group is a group by itself.
        read_keys: Reads the keys of the samples.
        unit: Singular noun for a sample.
        options: How labels are read.
        trained: Target of the trained model, of whose classes some may have no samples; by default, that of the table.
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
    for row, split in enumerate(splits):
        if split and split.lower() not in SPLIT_FOLDERS:
            raise table.error(row, f"split must be train, val, test or empty, got '{split}'")
    keys = read_keys(table)
    labels = read_labels(table, columns, options, trained)
    for note in table.notes:
        rank_zero_warn(note)
    given = np.array([SPLIT_FOLDERS[split.lower()] if split else "" for split in splits])
    if not {"train", ""} & {*given.tolist()} and trained is None:
        raise UserError(f"{file} has no {unit} in the train split: set some to train, or leave the column split empty")
    groups = table.clean(columns.group) if columns.group in table.cells else None
    balance = table.clean(columns.balance) if columns.balance else None
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Index(
        root,
        StringArray(keys[row] for row in order),
        labels.values[order],
        given[order],
        labels.names,
        np.array([groups[row] or f"alone: {keys[row]}" for row in order]) if groups else None,
        np.array([balance[row] for row in order]) if balance else None,
        kind=labels.kind,
        unit=unit,
    )
