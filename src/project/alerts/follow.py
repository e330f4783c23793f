"""Reading of a table that grows."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from project.alerts.rows import RowReader, Rows
from project.errors import UserError
from project.output import pluralize

MOST_HELD = 100
"""Lines that may be held back as one cell in quotation marks."""
CHECKED = 64
"""Last bytes read that are compared with the file, to notice that it was written anew."""


class GrowingTable:
    """Reads the rows that are appended to a table.

    Args:
        file: A CSV, TSV or JSON Lines file.
        reader: Reads its columns.

    Attributes:
        notes: Sentences about what was skipped, guessed or changed; the caller empties it.

    Raises:
        UserError: The file cannot be read, or has another format.
    """

    def __init__(self, file: Path, reader: RowReader) -> None:
        self.notes: list[str] = []
        self._file, self._reader, self._first = GrowingFile(file), reader, True
        self._told: set[str] = set()

    def read(self) -> Rows | None:
        """Return the new rows; None if there are none.

        Raises:
            UserError: The rows that were there at the start cannot be read.
        """
        header, lines = self._file.read()
        self.notes += self._file.notes
        self._file.notes.clear()
        if not lines.strip():
            return None
        rows: Rows | None
        try:
            rows = self._load(header + lines)
        except UserError:
            if self._first:
                raise
            rows = self._load_readable(header, lines)
        self._first = False
        self.notes += [note for note in rows.notes if note not in self._told] if rows else []
        self._told.update(rows.notes if rows else [])
        return rows

    def _load(self, data: bytes) -> Rows:
        with TemporaryDirectory() as folder:
            copy = Path(folder) / self._file.file.name
            copy.write_bytes(data)

            def in_file(text: str) -> str:
                text = text.replace(str(copy), str(self._file.file))
                return text if self._first else re.sub(r"\bline \d+", "a new line", text)

            try:
                rows = self._reader.load(copy)
            except UserError as error:
                raise UserError(in_file(str(error))) from error
        return rows._replace(notes=[in_file(note) for note in rows.notes])

    def _load_readable(self, header: bytes, lines: bytes) -> Rows | None:
        """Return the rows of the lines that can be read on their own; None if none can."""
        readable, problems = [], []
        for line in filter(bytes.strip, lines.splitlines(keepends=True)):
            try:
                self._load(header + line)
                readable.append(line)
            except UserError as error:
                problems.append(str(error))
        self.notes.append(f"skipping {pluralize(len(problems), 'line')}, e.g. {problems[0]}")
        return self._load(header + b"".join(readable)) if readable else None


class GrowingFile:
    """Returns the rows appended to a CSV, TSV or JSON Lines file once they are complete.

    A file that was replaced, truncated or written anew is read from its start.

    Args:
        file: The file, in UTF-8 or another encoding in which a line ends with the byte 10.

    Attributes:
        notes: Sentences about changes of the file; the caller empties it.

    Raises:
        UserError: The file cannot be read, or has another format.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.notes = file, list[str]()
        self._json, self._missing = file.suffix.lower() in (".jsonl", ".ndjson"), False
        self._stream = self._open()
        start = self._stream.read(4)
        if start == b"PAR1" or file.suffix.lower() in (".parquet", ".pq") or start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(f"--follow reads CSV, TSV and JSON Lines in UTF-8, and {file} is not: leave --follow out")
        self._restart()

    def _open(self) -> BinaryIO:
        try:
            return self.file.open("rb")
        except OSError as error:
            raise UserError(f"cannot read {self.file}: {error.strerror or error}") from error

    def _restart(self) -> None:
        self._stream.seek(0)
        self._header, self._rest, self._last = b"", b"", b""

    def read(self) -> tuple[bytes, bytes]:
        """Return the header, and the lines of the new complete rows."""
        if self._rewritten():
            self.notes.append(f"{self.file} was truncated or written anew: reading it from the start")
            self._restart()
        new = self._stream.read()
        self._last = (self._last + new)[-CHECKED:]
        data, self._rest = self._rest + new, b""
        if replaced := self._replaced():
            data += b"\n" * bool(data)  # no line follows in the old file
        rows = self._complete(self._without_header(data), everything=replaced)
        header = self._header
        if replaced:
            self.notes.append(f"{self.file} was replaced: reading the new file from the start")
            self._stream.close()
            self._stream = self._open()
            self._restart()
        return header, rows

    def _rewritten(self) -> bool:
        position = self._stream.tell()
        self._stream.seek(position - len(self._last))
        return self._stream.read(len(self._last)) != self._last

    def _replaced(self) -> bool:
        try:
            now = self.file.stat()
        except FileNotFoundError:
            if not self._missing:
                self.notes.append(f"{self.file} is gone: waiting for it")
            self._missing = True
            return False
        self._missing = False
        return not os.path.samestat(now, os.fstat(self._stream.fileno()))

    def _without_header(self, data: bytes) -> bytes:
        """Return the data after the header, which is kept; all of it is held back until the header is complete."""
        while not self._json and _is_preface(self._header):
            line, end, after = data.partition(b"\n")
            if not end:
                self._rest = data
                return b""
            self._header, data = self._header + line + end, after
        return data

    def _complete(self, data: bytes, everything: bool) -> bytes:
        """Return the complete rows; the rest is held back."""
        end = data.rfind(b"\n") + 1
        if not (everything or self._json or data.count(b"\n") > MOST_HELD):
            while end and data.count(b'"', 0, end) % 2:  # within a cell in quotation marks
                end = data.rfind(b"\n", 0, end - 1) + 1
        self._rest = data[end:] + self._rest
        return data[:end]


def _is_preface(lines: bytes) -> bool:
    """Return True if the header is still to come after these lines: blank ones, and the `sep=;` that Excel writes."""
    last = lines.splitlines()[-1] if lines else b""
    return not last.strip(b"\xef\xbb\xbf \t\r") or last.lower().startswith(b"sep=")
