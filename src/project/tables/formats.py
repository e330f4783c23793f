"""Formats of tables: CSV and TSV with any separator and encoding, JSON Lines, Parquet."""

import csv
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from project.errors import UserError
from project.output import SEPARATOR, pluralize

BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Whitespace, including no-break spaces, and zero-width characters."""
SEPARATORS = ",;\t|"
SAMPLE = 50  # lines from which the separator is found
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # first bytes
FIX = "save it as CSV in UTF-8, or as Parquet"
QUOTED = r'\A"((?:[^"]|"")*)"\Z'
CONTROL = r"[\x00-\x08\x0e-\x1f]"
NO_ROWS = "is empty: add a header with the names of the columns, and one row per sample"


class Content(NamedTuple):
    """Content of a table."""

    header: list[str]
    cells: dict[str, list[str]]  # by column, as written; missing ones are empty
    places: list[str]  # of each row in the file, e.g. "line 2"
    encoding: str
    notes: list[str]  # sentences about what was guessed or changed


def clean(text: str) -> str:
    """Return a text without blanks and zero-width characters at its ends, in Unicode NFC."""
    return unicodedata.normalize("NFC", text.strip(BLANKS))


def read_cells(file: Path, names: Sequence[str]) -> Content:
    """Read the columns of a table that have one of these names.

    Raises:
        UserError: The file cannot be read, or has rows of unequal length.
    """
    try:
        with file.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1" or file.suffix.lower() in (".parquet", ".pq")
        is_json = file.suffix.lower() in (".jsonl", ".ndjson")
        return (_read_parquet if is_parquet else _read_json_lines if is_json else _read_text)(file, names)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error


def _read_text(file: Path, names: Sequence[str]) -> Content:
    text, encoding, notes = decode_text(file)
    if not text.strip(BLANKS):
        raise UserError(f"{file} {NO_ROWS}")
    if match := re.match(r"sep=(.)\r?\n", text):  # written by Excel
        text = text[match.end() :]
    separator = match[1] if match else _separator(text, names)
    expected = {"\t"} if file.suffix.lower() in (".tsv", ".tab") else {","}
    if separator not in expected:
        notes.append(f"{file}: cells are separated by {separator!r}")
    # Otherwise blanks before a cell are counted and stripped later.
    spaced = f'{separator} "' in text
    # Many programs write tabs without quoting: if each line is a row, quotation marks do not join lines.
    plain = (
        separator == "\t" and len({line.count("\t") for line in re.split("[\r\n]+", text) if line.strip(BLANKS)}) == 1
    )
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        strict=True,
        skipinitialspace=spaced,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
    )
    header: list[str] = []
    places, rows = [], []
    try:
        for cells in reader:
            while len(cells) > len(header) and not cells[-1].strip(BLANKS):
                cells.pop()  # spreadsheets write empty cells beyond the last column
            if not any(cell.strip(BLANKS) for cell in cells):
                continue
            if plain:
                cells = [re.sub(QUOTED, lambda cell: cell[1].replace('""', '"'), cell) for cell in cells]
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
    return Content(header, columns, places, encoding, notes)


def decode_text(file: Path, fix: str = FIX) -> tuple[str, str, list[str]]:
    """Return the text of a file, its encoding, and notes about it.

    Raises:
        UserError: It is not a text file; `fix` is how to mend it.
    """
    data = file.read_bytes()
    if data.startswith(EXCEL):
        raise UserError(f"{file} is an Excel workbook or an archive, not a text file: {fix}")
    encoding = next((name for bom, name in BOMS.items() if data.startswith(bom)), "utf-8")
    notes = []
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise UserError(f"{file} is not valid UTF-16, as its first bytes say ({error.reason}): {fix}") from error
        text = data.decode(encoding, "surrogateescape")
        escaped, valid = (
            len(re.findall(f"[{span}]", text)) for span in ("\udc80-\udcff", "\x80-\ud7ff\ue000-\U0010ffff")
        )
        name = ""
        if valid < escaped and _is_gb18030(data):
            encoding, name = "gb18030", "GB 18030"
        elif valid or encoding != "utf-8":
            lines = sum(not line.isascii() and not _is_utf8(line) for line in text.splitlines())
            notes.append(f"{file}: {pluralize(lines, 'line')} with bytes that are not valid UTF-8, which are kept")
        else:
            encoding, name = "cp1252", "Windows-1252"
        if name:
            text = data.decode(encoding, "surrogateescape")
            notes.append(f"{file} is not in UTF-8: read as {name}; if letters are wrong, save it in UTF-8")
    if match := re.search("\0", text):
        line = text.count("\n", 0, match.start()) + 1
        raise UserError(f"{file}, line {line}: NUL bytes, so this is not a text file in UTF-8: {fix}")
    if damaged := sum(bool(re.search(CONTROL, line)) for line in text.split("\n")):
        notes.append(f"{file}: {pluralize(damaged, 'line')} with control characters, which are kept")
    return text, encoding, notes


def _is_gb18030(data: bytes) -> bool:
    """Return True if bytes are Chinese in GB 18030 or GBK: pairs of bytes, not single accented letters."""
    runs = re.findall(rb"[\xa1-\xfe]+", data)
    try:
        data.decode("gb18030")
    except UnicodeDecodeError:
        return False
    return sum(len(run) > 1 for run in runs) * 2 > len(runs)


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


def _read_parquet(file: Path, names: Sequence[str]) -> Content:
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
    return Content(header, cells, places, "utf-8", notes)


def _read_json_lines(file: Path, names: Sequence[str]) -> Content:
    text, encoding, notes = decode_text(file)
    rows, places, written = [], [], dict[str, None]()
    if not text.strip(BLANKS):
        raise UserError(f"{file} {NO_ROWS}")
    for number, line in enumerate(text.split("\n"), start=1):  # other line ends may be in a string
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
    return Content(header, cells, places, encoding, notes)


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():  # integers with missing values
        return str(int(value))
    if isinstance(value, list):  # of labels
        return SEPARATOR.join(map(_as_text, value))
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
