"""Tables of samples: CSV, TSV, JSON Lines or Parquet with any separator and encoding, as cleaned text."""

import csv
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from project.errors import UserError
from project.output import did_you_mean, pluralize

BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Whitespace, including no-break spaces, and zero-width characters."""
SEPARATORS = ",;\t|"
SAMPLE = 50  # lines from which the separator is found
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # first bytes
FIX = "save it as CSV in UTF-8, or as Parquet"


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
        """Return the cells of a column after `clean`; the number of changed cells is added to the notes."""
        cells = self.cells[column]
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


def clean(text: str) -> str:
    """Return a text without blanks and zero-width characters at its ends, in Unicode NFC."""
    return unicodedata.normalize("NFC", text.strip(BLANKS))


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

    The separator is a comma, semicolon, tab or vertical bar. The encoding is UTF-8 or UTF-16, otherwise Windows-1252.

    Args:
        file: The file to read.
        required: Columns that must exist, and the option that names each of them, e.g. {"label": "--columns.label"}, or
            an empty string.
        optional: Columns to read if they exist.

    Raises:
        UserError: The file cannot be read, has no rows, rows of unequal length, or lacks a required column.
    """
    names = list(dict.fromkeys([*required, *optional]))
    try:
        with file.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1" or file.suffix.lower() in (".parquet", ".pq")
        is_json = file.suffix.lower() in (".jsonl", ".ndjson")
        read = _read_parquet if is_parquet else _read_json_lines if is_json else _read_text
        header, table = read(file, names)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    for column, option in required.items():
        if column not in header:
            similar = did_you_mean(column.lower(), {name.lower(): f"{option} {name}" for name in header})
            columns = ", ".join(filter(None, header))
            fix = f": name one with {option} NAME{similar}" if option else ""
            raise UserError(f"{file} has no column '{column}'; it has {columns}{fix}")
    if not table.places:
        raise UserError(f"{file} has a header but no rows: add one row per sample")
    return table


def _read_text(file: Path, names: Sequence[str]) -> tuple[list[str], Table]:
    text, encoding, notes = decode_text(file)
    if match := re.match(r"sep=(.)\r?\n", text):  # written by Excel
        text = text[match.end() :]
    separator = match[1] if match else _separator(text, names)
    expected = {"\t"} if file.suffix.lower() in (".tsv", ".tab") else {","}
    if separator not in expected:
        notes.append(f"{file}: cells are separated by {separator!r}")
    # Otherwise blanks before a cell are counted and stripped later.
    spaced = f'{separator} "' in text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=spaced)
    header: list[str] = []
    places, rows = [], []
    try:
        for cells in reader:
            while len(cells) > len(header) and not cells[-1].strip(BLANKS):
                cells.pop()  # spreadsheets write empty cells beyond the last column
            if not any(cell.strip(BLANKS) for cell in cells):
                continue
            place = f"line {reader.line_num + bool(match)}"
            if not header:
                header = _header(file, cells, notes)
            elif len(cells) != len(header):
                fix = f"quote cells that contain {separator!r}, and write one cell per column"
                found = pluralize(len(cells), "cell")
                raise UserError(f"{file}, {place}: {found}, but the header has {len(header)}: {fix}")
            else:
                rows.append(cells)
                places.append(place)
    except csv.Error as error:
        fix = "within a cell, write quotation marks twice"
        raise UserError(f"{file}, line {reader.line_num + bool(match)}: {error}: {fix}") from error
    columns = {name: [row[header.index(name)] for row in rows] for name in names if name in header}
    return header, Table(file, columns, places, encoding, notes)


def decode_text(file: Path) -> tuple[str, str, list[str]]:
    """Return the text of a file, its encoding, and notes about it."""
    data = file.read_bytes()
    if data.startswith(EXCEL):
        raise UserError(f"{file} is an Excel workbook or an archive, not a text file: {FIX}")
    encoding = next((name for bom, name in BOMS.items() if data.startswith(bom)), "utf-8")
    notes = []
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise UserError(f"{file} is not valid UTF-16, as its first bytes say ({error.reason}): {FIX}") from error
        text = data.decode(encoding, "surrogateescape")
        if any("\x7f" < character < "\ud800" or character > "\udfff" for character in text):
            lines = sum(not line.isascii() and not _is_utf8(line) for line in text.splitlines())
            notes.append(f"{file}: {pluralize(lines, 'line')} with bytes that are not valid UTF-8, which are kept")
        else:
            encoding, text = "cp1252", data.decode("cp1252", "surrogateescape")
            notes.append(f"{file} is not in UTF-8: read as Windows-1252; if letters are wrong, save it in UTF-8")
    if match := re.search(r"[\x00-\x08\x0e-\x1f]", text):
        what = "NUL bytes" if match[0] == "\0" else "control characters"
        line = text.count("\n", 0, match.start()) + 1
        raise UserError(f"{file}, line {line}: {what}, so this is not a text file in UTF-8: {FIX}")
    if not text.strip(BLANKS):
        raise UserError(f"{file} is empty: add a header with the names of the columns, and one row per sample")
    return text, encoding, notes


def _is_utf8(text: str) -> bool:
    """Return True if a text contains no escaped bytes."""
    return not re.search("[\udc80-\udcff]", text)


def _separator(text: str, names: Sequence[str]) -> str:
    """Return the separator with which the header has most of the names, and rows have as many cells as the header."""
    sample = "".join(io.StringIO(text.lstrip(BLANKS.replace("\t", "")), newline="").readlines()[:SAMPLE])

    def score(separator: str) -> tuple[int, float, int]:
        header, *rows = list(csv.reader(io.StringIO(sample, newline=""), delimiter=separator)) or [[]]
        same = sum(len(row) == len(header) for row in rows) / max(1, len(rows)) if len(header) > 1 else 0.0
        return len({clean(cell) for cell in header} & {*names}), same, len(header)

    return max(SEPARATORS, key=score)


def _header(file: Path, cells: Sequence[str], notes: list[str]) -> list[str]:
    header = [clean(cell) for cell in cells]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError(f"{file} has several columns named '{twice[0]}': rename or remove all but one")
    if changed := [name for name, cell in zip(header, cells, strict=True) if name != cell]:
        notes.append(f"{file}: blanks or Unicode normalized in the header: {', '.join(map(repr, changed))}")
    return header


def _read_parquet(file: Path, names: Sequence[str]) -> tuple[list[str], Table]:
    import pyarrow
    from pyarrow import parquet

    notes: list[str] = []
    try:
        content = parquet.ParquetFile(file)
        written = content.schema_arrow.names
        header = _header(file, written, notes)
        wanted = {name: written[header.index(name)] for name in names if name in header}
        rows = content.read(columns=list(wanted.values()))
        cells = {name: [_as_text(value) for value in rows[column].to_pylist()] for name, column in wanted.items()}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file} as Parquet: {' '.join(str(error).split())}") from error
    places = [f"row {number}" for number in range(1, content.metadata.num_rows + 1)]
    return header, Table(file, cells, places, notes=notes)


def _read_json_lines(file: Path, names: Sequence[str]) -> tuple[list[str], Table]:
    text, encoding, notes = decode_text(file)
    rows, places, written = [], [], dict[str, None]()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip(BLANKS):
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file}, line {number}: not JSON ({error}): write one object per line") from error
        if not isinstance(row, dict):
            raise UserError(f'{file}, line {number}: expected an object such as {{"text": ...}}, got {line[:40]}')
        rows.append(row)
        places.append(f"line {number}")
        written |= dict.fromkeys(row)
    header = _header(file, list(written), notes)
    wanted = {name: list(written)[header.index(name)] for name in names if name in header}
    cells = {name: [_as_text(row.get(key)) for row in rows] for name, key in wanted.items()}
    return header, Table(file, cells, places, encoding, notes)


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():  # integers with missing values
        return str(int(value))
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
