"""Search for files, atomic file writing, and reading and writing of CSV tables."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from project.errors import UserError

csv.field_size_limit(2**31 - 1)  # cells are texts of any length


@contextmanager
def atomic_write(file: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path that replaces `file` when the block ends without an error.

    Until then `file` is unchanged, also if the process is killed.

    Args:
        file: The file to create or replace.
        mode: Permissions to create it with, e.g. 0o600.

    Raises:
        UserError: The file cannot be written.
    """
    # Keep the extension: some writers choose the format by it.
    partial = file.with_name(f".partial_{os.getpid()}_{file.name}")
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
    """Flush a file's content to disk; otherwise a file renamed later may be all zeros after a power failure."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a power failure does not undo a rename."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(file: Path, text: str) -> None:
    """Write text as UTF-8 atomically; bytes of file names that are not valid UTF-8 become question marks."""
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def write_table(file: Path, rows: Sequence[dict[str, Any]], heading: Sequence[str] = ()) -> None:
    """Write rows with the same columns as a CSV file, atomically.

    Args:
        file: The file to write.
        rows: Cells by column; floats are written with six digits.
        heading: Columns of a table without rows.
    """
    with (
        atomic_write(file) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.DictWriter(stream, list(rows[0]) if rows else heading)
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file in UTF-8 by column, with empty strings for missing cells.

    Args:
        file: The file to read.
        columns: Required columns.

    Raises:
        UserError: The file cannot be read, is not a CSV file, or lacks a required column.
    """
    header, rows = read_rows(file, columns)
    return [dict(zip(header, row, strict=False)) for row in rows]


def read_rows(file: Path, columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file, for tables whose columns may have the same name.

    Missing cells are empty. Bytes that are not UTF-8 are kept (`surrogateescape`), as file names may contain them.

    Args:
        file: The file to read.
        columns: Required columns.

    Raises:
        UserError: The file cannot be read, is not a CSV file, or lacks a required column.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            header, *rows = [row for row in csv.reader(stream) if row] or [[]]
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    found = ", ".join(header)
    if not found.isprintable():
        raise UserError(f"{file} is not a CSV file in UTF-8: save it as comma-separated text")
    for column in columns:
        if column not in header:
            raise UserError(f"{file} has no column '{column}'; it has {found or 'no columns'}")
    return header, [row + [""] * (len(header) - len(row)) for row in rows]


def find_files(
    folder: Path,
    extensions: tuple[str, ...],
    visited: list[str] | None = None,
    skipped: "Counter[str] | None" = None,
) -> Iterator[str]:
    """Yield the relative POSIX paths of the files below a folder, skipping hidden files and symlink loops.

    Args:
        folder: The folder to search, following symbolic links.
        extensions: Extensions of the files, in lower case.
        visited: List to which every searched folder is appended.
        skipped: Counts the other files, by extension.

    Raises:
        UserError: A folder cannot be read.
    """

    def raise_user_error(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error

    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=raise_user_error, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if visited is not None:
            visited.append(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = Path(here).relative_to(folder)
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(extensions):
                yield (prefix / name).as_posix()
            elif skipped is not None:
                skipped[Path(name).suffix.lower()] += 1
