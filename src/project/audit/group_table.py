"""Reading the groups of tested samples from a table."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from project.datamodules.images.path_matcher import PathMatcher
from project.errors import UserError
from project.output import shorten
from project.tables import Table, clean, load_table


def read_groups(
    file: Path, key: str, key_column: str, columns: Sequence[str], paths: Sequence[str], units: str
) -> dict[str, list[str]]:
    """Return the value of each tested sample in each column; empty for samples that are not in the table.

    Args:
        file: The table.
        key: First column of test_predictions.csv: `path`, or e.g. `text` if samples have no path.
        key_column: Column of the paths or texts; `key` is used if there is no such column.
        columns: Columns of the groups.
        paths: Paths of the tested samples, or the texts themselves.
        units: Plural noun for the samples.

    Raises:
        UserError: The table lacks a column, lists a path twice, or lists none of the samples.
    """
    table = load_table(file, dict.fromkeys(columns, "--column"), [key_column, key])
    shown = str if key == "path" else shorten
    key_column = key_column if key_column in table.cells else key
    if key_column not in table.cells:
        raise UserError(f"{file} has no column '{key}', with {key}s like {shown(paths[0])}")
    cells = {column: table.clean(column) for column in columns}
    names = table.cells[key_column]
    rows = _rows_of_paths(table, names, paths) if key == "path" else _rows_of_texts(names, paths, cells)
    missing = [path for path, row in zip(paths, rows, strict=True) if row is None]
    if len(missing) == len(paths):
        raise UserError(f"{file} lists none of the tested {units}: {key}s must be given like {shown(missing[0])}")
    if missing:
        which = f"{len(missing):,} of {len(paths):,} tested {units} that are not in {file}"
        print(f"skipping {which}, e.g. {shown(missing[0])}")
    if several := sum(row == -1 for row in rows):
        print(f"skipping {several:,} of {len(paths):,} tested {units} that {file} lists with different values")
    for note in table.notes:
        print(note)
    return {column: ["" if row is None or row < 0 else values[row] for row in rows] for column, values in cells.items()}


def _rows_of_paths(table: Table, names: Sequence[str], paths: Sequence[str]) -> list[int | None]:
    """Return the row of each path in the table."""
    matcher, row_of = PathMatcher(lambda: paths, encoding=table.encoding), dict[str, int]()
    for row, name in enumerate(names):
        if (path := matcher.match(name)) and row_of.setdefault(path, row) != row:
            raise table.error(row, f"{path} is listed twice, also in {table.places[row_of[path]]}")
    return [row_of.get(path) for path in paths]


def _rows_of_texts(names: Sequence[str], texts: Sequence[str], cells: dict[str, list[str]]) -> list[int | None]:
    """Return the row of each text in the table; -1 if it has several whose values differ.

    A text that the table lists as often as it was tested has its rows in their order.
    """
    rows_of = defaultdict[str, list[int]](list)
    for row, text in enumerate(names):
        rows_of[_normalized(text)].append(row)
    tested, seen, rows = Counter(map(_normalized, texts)), Counter[str](), list[int | None]()
    for text in map(_normalized, texts):
        found = rows_of.get(text, [])
        same = len({tuple(values[row] for values in cells.values()) for row in found}) == 1
        in_order = len(found) == tested[text]
        rows.append(None if not found else found[seen[text]] if in_order else found[0] if same else -1)
        seen[text] += 1
    return rows


def _normalized(text: str) -> str:
    return " ".join(re.sub("[\u200b\u2060\ufeff\x00]", "", clean(text)).split())
