"""Files that are whole or not there, and tables that people write."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from project.errors import UserError


@contextmanager
def atomic_write(file: Path, mode: int | None = None) -> Iterator[Path]:
    """A path to write to, which takes the name of the file once all is written; until then that is as it was.

    `mode` are permissions that it has from the beginning, such as 0o600.
    """
    partial = file.with_name(f".partial_{os.getpid()}_{file.name}")  # the ending says to some what to write
    try:
        if mode is not None:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield partial
        flush_to_disk(partial)
        partial.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def flush_to_disk(file: Path) -> None:
    """See that a file's content survives a power cut; else one that is renamed after may come back full of zeros."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Bring names in a folder to the disk, so that a power cut does not undo a rename."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(file: Path, text: str) -> None:
    """Write text as UTF-8; parts of file names that are none become question marks."""
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def write_table(file: Path, rows: Sequence[dict[str, Any]], heading: Sequence[str] = ()) -> None:
    """Write rows of the same columns as a CSV, floats with six digits; the heading is that of a table without rows."""
    with (
        atomic_write(file) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.DictWriter(stream, list(rows[0]) if rows else heading)
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV that somebody wrote: UTF-8, its header has these columns; a missing cell is empty.

    Bytes that are no UTF-8 are kept, as they are in names of files.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream, restval="")
            rows = list(reader)
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    found = ", ".join(reader.fieldnames or ())
    if not found.isprintable():
        raise UserError(f"{file} is no comma-separated text in UTF-8: save it as CSV")
    for column in columns:
        if column not in (reader.fieldnames or ()):
            raise UserError(f"{file} has no column '{column}'; it has {found or 'nothing'}")
    return rows
