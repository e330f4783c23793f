"""Targets of a table: classes, labels or values, from one column or several."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from project.errors import UserError
from project.interface import MultilabelTarget, Target, ValueTarget
from project.output import pluralize
from project.tables import Columns, Table, check_distinct, clean

TargetKind = Literal["classes", "multilabel", "values"]
TargetOption = Literal["auto"] | TargetKind
FLAGS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "-1": np.nan, "": np.nan}
"""Cells of a column of labels by their text, without decimals and in lower case; -1 is uncertain."""
SPLITTABLE = "|;,/+"
"""Characters that may separate several labels in a cell."""


@dataclass(frozen=True)
class LabelOptions:
    """How labels are read: the options `data.target` and `data.label_separator`.

    Args:
        target: What is predicted: one class of each sample, any number of labels (`multilabel`), or values. `auto`
            decides by the cells: several columns of 0 and 1, or a separator, are labels, other numbers are values, and
            one column of anything but decimal numbers holds classes.
        separator: Separator of several labels in a cell, e.g. `|`.
    """

    target: TargetOption = "auto"
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.separator is not None and (self.target not in ("auto", "multilabel") or not self.separator.strip()):
            raise UserError(
                f"data.label_separator {self.separator!r} must be a character such as '|', and is for labels: use"
                " data.target multilabel with it"
            )


DEFAULT_LABELS = LabelOptions()


@dataclass(frozen=True)
class Labels:
    """The target of each row.

    Attributes:
        kind: Kind of the target.
        names: Names of the classes, labels or values.
        values: Classes: int64 (N,). Labels, 0 or 1, and values: float32 (N, names), NaN if unknown.
    """

    kind: TargetKind
    names: list[str]
    values: NDArray[Any]


def kind_of(target: Target) -> TargetKind:
    """Return the kind of a trained model's target, for one of this project."""
    kinds: dict[type, TargetKind] = {MultilabelTarget: "multilabel", ValueTarget: "values"}
    return kinds.get(type(target), "classes")


def read_labels(table: Table, columns: Columns, options: LabelOptions, trained: Target | None = None) -> Labels:
    """Read the label columns of a table; what was guessed or is unknown is added to its notes.

    Args:
        table: The table.
        columns: Names of the label columns.
        options: What the labels are.
        trained: Target of the trained model, whose names are kept in order; by default, they are found in the table.

    Raises:
        UserError: A cell is invalid, the columns do not fit the target, or the trained model does not have a label.
    """
    names, expected = columns.labels, None if trained is None else list(trained.names)
    cells = {name: table.clean(name) for name in names}
    kind = kind_of(trained) if trained else options.target
    if kind == "auto":
        kind = _guess(table, cells, options)
    if kind == "values":
        return _values(table, cells, expected)
    if kind == "multilabel" and (options.separator or (len(names) == 1 and not _flags(cells[names[0]]))):
        return _separated(table, names, cells[names[0]], options.separator, expected)
    if kind == "multilabel":
        return _columns_of_flags(table, cells, expected)
    if len(names) > 1:
        raise UserError(f"{table.file}: {len(names)} label columns, but data.target classes needs one: name one column")
    return _classes(table, columns.key, cells[names[0]], expected)


def class_labels(file: Path, cells: Sequence[str], expected: Sequence[str] | None) -> Labels:
    """Return the classes of cells: those expected by a trained model, or the sorted ones."""
    check_distinct(file, cells)
    names = list(expected or sort_classes(set(cells)))
    if len(names) < 2:
        raise UserError(f"{file} has only one class, '{names[0]}': a classifier needs at least two")
    position = {clean(name): number for number, name in enumerate(names)}
    check_classes(file, cells, list(position), "the trained model")
    return Labels("classes", names, np.array([position[cell] for cell in cells], np.int64))


def _guess(table: Table, cells: dict[str, list[str]], options: LabelOptions) -> TargetKind:
    if options.separator:
        return "multilabel"
    if len(cells) == 1:
        (name, column), *_ = cells.items()
        numbers = [number(cell) for cell in column if cell]
        if numbers and None not in numbers and any(value % 1 for value in numbers if value is not None):
            table.notes.append(
                f"{table.file}: column {name} holds decimal numbers, which are predicted as values; to predict classes,"
                " use --data.target classes"
            )
            return "values"
        return "classes"
    if all(_flags(column) for column in cells.values()):
        return "multilabel"
    for name, column in cells.items():
        if odd := next((cell for cell in column if cell and number(cell) is None), None):
            raise UserError(
                f"{table.file}: {len(cells)} label columns must hold 0 and 1, or numbers; {name} has {odd!r}: to"
                " predict one class, name one column with --data.columns.label"
            )
    return "values"


def _classes(table: Table, key: str, cells: list[str], expected: Sequence[str] | None) -> Labels:
    if not all(cells):
        row = cells.index("")
        raise table.error(row, f"{table.cells[key][row]} has no label")
    for separator in SPLITTABLE:
        split = [cell.split(separator) for cell in cells if separator in cell]
        parts = Counter(part.strip() for each in split for part in each)
        whole = set(cells)
        if len(split) > 1 and (separator in "|;" or sum(part in whole for part in parts) * 2 >= len(parts)):
            example = next(cell for cell in cells if separator in cell)
            table.notes.append(
                f"{table.file}: {pluralize(len(split), 'label')} look like several in one cell, e.g. {example!r}: to"
                f" predict each of them, use --data.label_separator '{separator}'"
            )
            break
    labels = class_labels(table.file, cells, expected)
    if expected is None and len(labels.names) > 20 and all(re.fullmatch(r"-?\d+", name) for name in labels.names):
        table.notes.append(
            f"{table.file}: {len(labels.names)} classes are named by whole numbers; to predict the number, use"
            " --data.target values"
        )
    return labels


def _separated(
    table: Table, columns: Sequence[str], cells: list[str], separator: str | None, expected: list[str] | None
) -> Labels:
    if len(columns) > 1:
        raise UserError(f"{table.file}: data.label_separator is for one label column, and {len(columns)} are named")
    if separator is None:
        raise UserError(
            f"{table.file}: one column of several labels needs their separator: add --data.label_separator '|', or name"
            " several columns of 0 and 1 with --data.columns.label '[A, B]'"
        )
    rows = [[part for part in map(clean, cell.split(separator)) if part] for cell in cells]
    found = {name for row in rows for name in row}
    check_distinct(table.file, found)
    names = expected or sort_classes(found)
    if not names:
        raise UserError(f"{table.file}: column {columns[0]} has no labels")
    check_classes(table.file, found, names, "the trained model")
    if none := sum(not row for row in rows):
        table.notes.append(f"{table.file}: {pluralize(none, 'row')} without a label, which is an example of none")
    position = {name: number for number, name in enumerate(names)}
    values = np.zeros((len(rows), len(names)), np.float32)
    for row, each in enumerate(rows):
        values[row, [position[name] for name in each]] = 1
    return Labels("multilabel", names, values)


def _columns_of_flags(table: Table, cells: dict[str, list[str]], expected: list[str] | None) -> Labels:
    names = _in_order(table, list(cells), expected)
    values = np.zeros((len(table.places), len(names)), np.float32)
    for column, name in enumerate(names):
        for row, cell in enumerate(cells[name]):
            flag = FLAGS.get(_flag(cell))
            if flag is None:
                raise table.error(row, f"{name} must be 0, 1, or -1 or empty if unknown, got {cell!r}")
            values[row, column] = flag
    blank = sum(not cell for column in cells.values() for cell in column)
    uncertain = int(np.isnan(values).sum()) - blank
    for count, what in ((blank, "empty"), (uncertain, "-1 (uncertain)")):
        if count:
            table.notes.append(
                f"{table.file}: {count:,} of {values.size:,} labels are {what}: they count in neither loss nor metrics"
            )
    return Labels("multilabel", names, values)


def _values(table: Table, cells: dict[str, list[str]], expected: list[str] | None) -> Labels:
    names = _in_order(table, list(cells), expected)
    values = np.full((len(table.places), len(names)), np.nan, np.float32)
    for column, name in enumerate(names):
        for row, cell in enumerate(cells[name]):
            if cell:
                found = number(cell)
                if found is None:
                    raise table.error(row, f"{name} must be a number, or empty if unknown, got {cell!r}")
                values[row, column] = found
    if blank := int(np.isnan(values).sum()):
        table.notes.append(
            f"{table.file}: {blank:,} of {values.size:,} values are empty: they count in neither loss nor metrics"
        )
    return Labels("values", names, values)


def _in_order(table: Table, names: list[str], expected: list[str] | None) -> list[str]:
    if expected is not None and set(names) != set(expected):
        differing = ", ".join(sorted({*names} ^ {*expected}))
        raise UserError(f"{table.file}: the label columns differ from those of the trained model in {differing}")
    return expected or names


def number(text: str) -> float | None:
    """Return the finite number that a text is; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _flag(cell: str) -> str:
    return re.sub(r"\.0+$", "", cell).lower()


def _flags(cells: Sequence[str]) -> bool:
    return all(_flag(cell) in FLAGS for cell in cells)


def sort_classes(names: Any) -> list[str]:
    """Return class names in order: by number if all are integers (2 before 10), otherwise by text."""
    ordered = sorted(names)
    return sorted(ordered, key=int) if all(name.removeprefix("-").isdecimal() for name in ordered) else ordered


def check_classes(location: Path | str, names: Any, expected: Sequence[str], source: str) -> None:
    """Raise a UserError that lists the classes among `names` that are not among those expected by `source`."""
    if extra := sorted(set(names) - set(expected)):
        raise UserError(f"{location} has class {', '.join(map(repr, extra))}, which {source} does not have")
