"""Files that are whole or not there."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from project.errors import UserError


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the name of the file once all is written; until then that is as it was.

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    partial = file.with_name(f".partial_{os.getpid()}_{file.name}")  # the ending says to some what to write
    try:
        yield partial
        partial.replace(file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_text(file: Path, text: str) -> None:
    """Write text as UTF-8; parts of file names that are none become question marks."""
    with whole(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def write_table(file: Path, rows: Sequence[dict[str, Any]], heading: Sequence[str] = ()) -> None:
    """Write rows of the same columns as a CSV, floats with six digits.

    Args:
        file: Where to.
        rows: Values by column.
        heading: The columns of a table without rows.
    """
    with whole(file) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else heading)
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
