"""Tables as CSV files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_table(file: Path, rows: Sequence[dict[str, Any]], heading: Sequence[str] = ()) -> None:
    """Write rows of the same columns, floats with six digits; the file is whole or not there.

    Args:
        file: Where to.
        rows: Values by column.
        heading: The columns of a table without rows.
    """
    partial = file.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else heading)
        writer.writeheader()
        writer.writerows({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    partial.replace(file)
