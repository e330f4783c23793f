"""The command `groups`: evaluation by subgroup."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.audit.gaps import METRICS, MIN_IMAGES, RESAMPLES, Grouping, largest_gap
from project.datamodules.path_matcher import PathMatcher
from project.datamodules.tables import load_table
from project.errors import UserError
from project.files import write_table
from project.runs.predictions import Predictions
from project.runs.read import read_run
from project.runs.statistics import holm_correction, wilson_interval

GROUPS, GAPS = "groups.csv", "gaps.csv"


def groups(
    run: Path, column: str | list[str] | None = None, table: Path | None = None, folder_level: int | None = None
) -> None:
    """Compare subgroups of the tested images; writes groups.csv and gaps.csv into the run folder.

    Args:
        run: Folder of a tested run, e.g. logs/NAME/version_N, or `last`.
        column: Column of the table with the group of each image. Several columns, given as a list '[skin_type, sex]',
            are also combined.
        table: CSV, TSV or Parquet file with a column of paths, as in test_predictions.csv, and the given columns; by
            default the table that the run was trained with.
        folder_level: Group by a folder of the image path instead of a column; 0 is the first one.

    Raises:
        UserError: the run has no tested images, or no groups can be formed.
    """
    loaded = read_run(run)
    tested = loaded.require_classes("groups")
    columns = [column] if isinstance(column, str) else column or []
    if (folder_level is None) == (not columns):
        raise UserError("give either --column NAME, a column of a table, or --folder_level 0")
    if folder_level is not None:
        values = {f"folder {folder_level}": [_folder(path, folder_level) for path in tested.paths]}
    else:
        data = loaded.config.get("data") or {}
        data = data.get("init_args", data)
        table = table or data.get("table")
        if not table:
            raise UserError("this run was not trained with a table: give a table of groups with --table FILE.csv")
        values = _read(Path(table), (data.get("columns") or {}).get("path", "path"), columns, tested)
    groupings = [_grouping(title, each, tested) for title, each in values.items()]
    if len(values) > 1:
        combined = [" and ".join(parts) if all(parts) else "" for parts in zip(*values.values(), strict=True)]
        groupings.append(_grouping(" and ".join(values), combined, tested))
    # With fewer permutations no p-value could be below 0.05 after correction.
    permutations = max(RESAMPLES, 100 * len(groupings) * len(METRICS))
    gaps = [gap for each in groupings for metric in METRICS if (gap := largest_gap(each, metric, permutations))]
    for gap, p in zip(gaps, holm_correction([gap["p"] for gap in gaps]), strict=True):
        gap |= {"p corrected": p, "verdict": "significant" if p < 0.05 else "not significant"}
    rows = []
    for each in groupings:
        group_rows = _rows(each)
        _print(each.title, group_rows, [gap for gap in gaps if gap["groups"] == each.title])
        rows += group_rows
    write_table(loaded.folder / GROUPS, rows)
    write_table(loaded.folder / GAPS, gaps, ["groups"])
    print(f"{loaded.folder / GROUPS}, {loaded.folder / GAPS}")


def _folder(path: str, level: int) -> str:
    folders = path.split("/")[:-1]
    if level not in range(len(folders)):
        raise UserError(f"{path} has no folder {level}: it has {len(folders)}, counted from 0")
    return folders[level]


def _read(file: Path, path_column: str, columns: Sequence[str], tested: Predictions) -> dict[str, list[str]]:
    """Return the value of each tested image in each column; empty for images that are not in the table.

    Args:
        file: The table.
        path_column: Column of the paths; `path` is used if there is no such column.
        columns: Columns of the groups.
        tested: The tested images.
    """
    table = load_table(file, dict.fromkeys(columns, "--column"), [path_column, "path"])
    path_column = path_column if path_column in table.cells else "path"
    if path_column not in table.cells:
        raise UserError(f"{file} has no column 'path', with paths like {tested.paths[0]}")
    matcher, row_of = PathMatcher(lambda: tested.paths, encoding=table.encoding), dict[str, int]()
    for row, name in enumerate(table.cells[path_column]):
        if (path := matcher.match(name)) and row_of.setdefault(path, row) != row:
            raise table.error(row, f"{path} is listed twice, also in {table.places[row_of[path]]}")
    missing, total = [path for path in tested.paths if path not in row_of], len(tested.paths)
    if len(missing) == total:
        raise UserError(f"{file} lists none of the tested images: paths must be given like {missing[0]}")
    if missing:
        print(f"skipping {len(missing):,} of {total:,} tested images that are not in {file}, e.g. {missing[0]}")
    cells = {column: table.clean(column) for column in columns}
    for note in table.notes:
        print(note)
    rows = [row_of.get(path, -1) for path in tested.paths]
    return {column: ["" if row < 0 else values[row] for row in rows] for column, values in cells.items()}


def _grouping(title: str, values: list[str], tested: Predictions) -> Grouping:
    known = np.flatnonzero([value != "" for value in values])
    names, group = np.unique(np.array(values)[known], return_inverse=True)
    if len(names) < 2:
        raise UserError(f"all tested images have the same value of {title}, '{''.join(names)}': no groups to compare")
    return Grouping(title, names.tolist(), group, tested.subset(known))


def _rows(grouping: Grouping) -> list[dict[str, Any]]:
    """Return the rows of groups.csv."""
    rates = {metric: grouping.rates(metric) for metric in METRICS}
    rows = []
    for number, name in enumerate(grouping.names):
        correct = grouping.tested.correct[grouping.group == number]
        low, high = wilson_interval(int(correct.sum()), len(correct))
        row = {"groups": grouping.title, "group": name, "images": len(correct), "small": len(correct) < MIN_IMAGES}
        row |= {"accuracy": rates["accuracy"][number, 0], "accuracy low": low, "accuracy high": high}
        row |= {metric: rates[metric][number, 0] for metric in ("mean recall", "calibration error")}
        for metric in ("recall", "selection rate"):
            row |= {f"{metric} {c}": rates[metric][number, i] for i, c in enumerate(grouping.tested.names)}
        rows.append(row)
    return rows


def _print(title: str, rows: list[dict[str, Any]], gaps: list[dict[str, Any]]) -> None:
    width = max(len(title), *(len(row["group"]) for row in rows)) + 2
    head = f"{'images':>8}{'accuracy':>10}{'95 % CI':>20}{'mean recall':>13}{'calibration error':>19}"
    print(f"\n{title:<{width}}{head}")
    for row in rows:
        interval, small = f"{row['accuracy low']:.1%} to {row['accuracy high']:.1%}", "  small, not compared"
        cells = f"{row['images']:>8,}{row['accuracy']:>10.1%}{interval:>20}{row['mean recall']:>13.1%}"
        print(f"{row['group']:<{width}}{cells}{row['calibration error']:>19.3f}{small if row['small'] else ''}")
    if not gaps:
        print(f"fewer than two groups have at least {MIN_IMAGES} images: nothing to compare\n")
        return
    worst = min((row for row in rows if not row["small"]), key=lambda row: row["accuracy"])
    print(f"worst group: {worst['group']}, accuracy {worst['accuracy']:.1%}\nlargest gaps:")
    for gap in gaps:
        metric = f"{gap['figure']} of {gap['class']}" if gap["class"] else gap["figure"]
        points, low, high = (f"{100 * gap[key]:.1f}" for key in ("gap", "gap low", "gap high"))
        result = f"{points} points (95 % CI {low} to {high}), {gap['verdict']} (p = {gap['p corrected']:.3f})"
        print(f"  {metric}: {gap['highest']} {gap['high']:.1%}, {gap['lowest']} {gap['low']:.1%}: {result}")
    print()
