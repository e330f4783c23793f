"""Tables of samples: their columns, and their cells as cleaned text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from project.errors import UserError
from project.output import did_you_mean, pluralize
from project.tables.formats import BLANKS, CONTROL, clean, read_cells


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; subclasses add the column of the samples, which `key` names.

    Args:
        label: Class of each sample; or several columns, of 0 and 1 for labels, of numbers for values to predict.
        split: train, val, test or empty; by default the column `split`, if there is one.
        group: Group of each sample, e.g. a patient; a group stays in one split.
        balance: E.g. a camera or a skin type. `sampling: balanced` then samples all pairs of class and entry equally
            often, so that the entry does not predict the class.
    """

    label: str | list[str] = "label"
    split: str | None = None
    group: str | None = None
    balance: str | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the label columns."""
        return [self.label] if isinstance(self.label, str) else list(self.label)

    @property
    def key(self) -> str:
        """Name of the column of the samples."""
        raise NotImplementedError


@dataclass(frozen=True)
class PathColumns(Columns):
    """Names of the columns of a table of files.

    Args:
        path: Path of each file relative to the dataset directory, or its name without the extension.
        label: Class of each sample; or several columns, of 0 and 1 for labels, of numbers for values to predict.
        split: train, val, test or empty; by default the column `split`, if there is one.
        group: Group of each sample, e.g. a patient; a group stays in one split.
        balance: E.g. a camera or a skin type. `sampling: balanced` then samples all pairs of class and entry equally
            often, so that the entry does not predict the class.
    """

    path: str = "path"

    @property
    @override
    def key(self) -> str:
        return self.path


DEFAULT_COLUMNS = PathColumns()


@dataclass(frozen=True)
class Table:
    """Cells of a table as text, without blank rows.

    Attributes:
        file: The file that was read.
        cells: Cells by column, as written; missing ones are empty.
        places: Place of each row in the file, e.g. "line 2".
        encoding: Encoding of the text.
        notes: Sentences about what was guessed or changed.
    """

    file: Path
    cells: dict[str, list[str]]
    places: Sequence[str]
    encoding: str = "utf-8"
    notes: list[str] = field(default_factory=list)

    def clean(self, column: str) -> list[str]:
        """Return the cells of a column after `clean`; the number of changed cells is added to the notes.

        Raises:
            UserError: A cell has control characters.
        """
        cells = self.cells[column]
        if damaged := next((row for row, cell in enumerate(cells) if re.search(CONTROL, cell)), None):
            raise self.error(damaged, f"control characters in column {column}: {cells[damaged]!r}")
        cleaned = [clean(cell) for cell in cells]
        stripped = sum(cell.strip(BLANKS) != cell for cell in cells)
        normalized = sum(cell.strip(BLANKS) != result for cell, result in zip(cells, cleaned, strict=True))
        for count, change in ((stripped, "blanks removed around"), (normalized, "Unicode normalized (NFC) in")):
            if count:
                self.notes.append(f"{self.file}: {change} {pluralize(count, 'cell')} of column {column}")
        return cleaned

    def error(self, row: int, problem: str) -> UserError:
        """Return an error about a row."""
        return UserError(f"{self.file}, {self.places[row]}: {problem}")


def check_distinct(file: Path, labels: Iterable[str]) -> None:
    """Raise a UserError if two labels differ only in case, or in blanks and zero-width characters within."""
    seen: dict[str, str] = {}
    for label in sorted(set(labels)):
        key = " ".join(re.sub("[\u200b\u2060\ufeff]", "", label).lower().split())
        if (other := seen.setdefault(key, label)) != label:
            fix = "write them in one way if they are one class, otherwise rename one"
            raise UserError(f"{file}: labels {other!r} and {label!r} differ only in case or blanks: {fix}")


def load_table(file: Path, required: Mapping[str, str], optional: Sequence[str] = ()) -> Table:
    """Read a CSV, TSV, JSON Lines or Parquet file.

    The separator is a comma, semicolon, tab or vertical bar. The encoding is UTF-8 or UTF-16, otherwise GB 18030 or
    Windows-1252.

    Args:
        file: The file to read.
        required: Columns that must exist, and the option that names each of them, e.g. {"label": "--columns.label"}, or
            an empty string.
        optional: Columns to read if they exist.

    Raises:
        UserError: The file cannot be read, has no rows, rows of unequal length, or lacks a required column.
    """
    content = read_cells(file, list(dict.fromkeys([*required, *optional])))
    header, table = content.header, Table(file, content.cells, content.places, content.encoding, content.notes)
    for column, option in required.items():
        if column not in header:
            similar = did_you_mean(column.lower(), {name.lower(): f"{option} {name}" for name in header})
            columns = ", ".join(filter(None, header))
            fix = f": name one with {option} NAME{similar}" if option else ""
            raise UserError(f"{file} has no column '{column}'; it has {columns}{fix}")
    if not table.places:
        raise UserError(f"{file} has a header but no rows: add one row per sample")
    return table
