"""`python -m project groups RUN`: whether a model serves all groups of images alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.audit.gaps import DRAWS, FIGURES, SMALL, Grouping, find_gap
from project.errors import UserError
from project.files import read_table, write_table
from project.runs.predictions import Predictions
from project.runs.read import read_run
from project.runs.statistics import holm_correction, wilson_interval

GROUPS, GAPS = "groups.csv", "gaps.csv"


def groups(
    run: Path, column: str | list[str] | None = None, table: Path | None = None, folder_level: int | None = None
) -> None:
    """Hold the groups of a tested run's images against each other: screen, and groups.csv and gaps.csv in the run.

    Args:
        run: The folder of a run that was tested: logs/NAME/version_N, or last.
        column: The column of the table that says which group an image belongs to; several, as a list
            '[skin_type, sex]', are also taken together.
        table: A CSV with the columns path, as in test_predictions.csv, and those named; by default the labels CSV that
            the run was trained with.
        folder_level: In place of a column: a folder of the path says it, 0 for the first one.

    Raises:
        UserError: nothing was tested in the run, or no groups can be told.
    """
    found = read_run(run)
    if found.predictions is None:
        raise UserError(f"{found.folder} was tested on no image: there is nothing to group")
    tested = found.predictions
    columns = [column] if isinstance(column, str) else column or []
    if (folder_level is None) == (not columns):
        raise UserError("say what groups are by: --column NAME of a table, or --folder_level 0")
    if folder_level is not None:
        values = {f"folder {folder_level}": [_folder(path, folder_level) for path in tested.paths]}
    else:
        data = found.config.get("data") or {}
        table = table or data.get("init_args", data).get("labels")
        if not table:
            raise UserError("this run was not trained with a labels CSV: give a table of groups by --table FILE.csv")
        values = _read(Path(table), columns, tested)
    groupings = [_grouping(title, each, tested) for title, each in values.items()]
    if len(values) > 1:
        together = [" and ".join(parts) if all(parts) else "" for parts in zip(*values.values(), strict=True)]
        groupings.append(_grouping(" and ".join(values), together, tested))
    draws = max(DRAWS, 100 * len(groupings) * len(FIGURES))  # else no p could stay below 0.05 once it is corrected
    gaps = [gap for each in groupings for figure in FIGURES if (gap := find_gap(each, figure, draws))]
    for gap, p in zip(gaps, holm_correction([gap["p"] for gap in gaps]), strict=True):
        gap |= {"p corrected": p, "verdict": "more than noise" if p < 0.05 else "within noise"}
    rows = []
    for each in groupings:
        of_these = _rows(each)
        _show(each.title, of_these, [gap for gap in gaps if gap["groups"] == each.title])
        rows += of_these
    write_table(found.folder / GROUPS, rows)
    write_table(found.folder / GAPS, gaps, ["groups"])
    print(f"{found.folder / GROUPS}, {found.folder / GAPS}")


def _folder(path: str, level: int) -> str:
    folders = path.split("/")[:-1]
    if level not in range(len(folders)):
        raise UserError(f"{path} has no folder {level}: it has {len(folders)}, counted from 0")
    return folders[level]


def _read(table: Path, columns: Sequence[str], tested: Predictions) -> dict[str, list[str]]:
    """The entry of each tested image in each column; empty where the table does not say."""
    known = {row["path"]: row for row in read_table(table, ["path", *columns])}
    missing, total = [path for path in tested.paths if path not in known], len(tested.paths)
    if len(missing) == total:
        raise UserError(f"{table} names none of the tested images: its paths are to be like {missing[0]}")
    if missing:
        print(f"{len(missing):,} of {total:,} tested images are not in {table} and left out, such as {missing[0]}")
    return {column: [known[path][column] if path in known else "" for path in tested.paths] for column in columns}


def _grouping(title: str, values: list[str], tested: Predictions) -> Grouping:
    told = np.flatnonzero([value != "" for value in values])
    names, group = np.unique(np.array(values)[told], return_inverse=True)
    if len(names) < 2:
        same = f"all tested images have the same entry in {title}, '{''.join(names)}'"
        raise UserError(f"{same}: there are no groups to compare")
    return Grouping(title, names.tolist(), group, tested.subset(told))


def _rows(grouping: Grouping) -> list[dict[str, Any]]:
    """The rows of groups.csv."""
    figures = {figure: grouping.rates(figure) for figure in FIGURES}
    rows = []
    for number, name in enumerate(grouping.names):
        right = grouping.tested.correct[grouping.group == number]
        low, high = wilson_interval(int(right.sum()), len(right))
        row = {"groups": grouping.title, "group": name, "images": len(right), "small": len(right) < SMALL}
        row |= {"accuracy": figures["accuracy"][number, 0], "accuracy low": low, "accuracy high": high}
        row |= {figure: figures[figure][number, 0] for figure in ("mean recall", "calibration error")}
        for figure in ("recall", "selection rate"):
            row |= {f"{figure} {c}": figures[figure][number, i] for i, c in enumerate(grouping.tested.names)}
        rows.append(row)
    return rows


def _show(title: str, rows: list[dict[str, Any]], gaps: list[dict[str, Any]]) -> None:
    width = max(len(title), *(len(row["group"]) for row in rows)) + 2
    head = f"{'images':>8}{'accuracy':>10}{'95 % interval':>20}{'mean recall':>13}{'calibration error':>19}"
    print(f"\n{title:<{width}}{head}")
    for row in rows:
        interval, small = f"{row['accuracy low']:.1%} to {row['accuracy high']:.1%}", "  small, not compared"
        cells = f"{row['images']:>8,}{row['accuracy']:>10.1%}{interval:>20}{row['mean recall']:>13.1%}"
        print(f"{row['group']:<{width}}{cells}{row['calibration error']:>19.3f}{small if row['small'] else ''}")
    if not gaps:
        print(f"fewer than two groups hold {SMALL} images: nothing is compared\n")
        return
    worst = min((row for row in rows if not row["small"]), key=lambda row: row["accuracy"])
    print(f"worst group: {worst['group']}, accuracy {worst['accuracy']:.1%}\nlargest gaps:")
    for gap in gaps:
        what = f"{gap['figure']} of {gap['class']}" if gap["class"] else gap["figure"]
        points, low, high = (f"{100 * gap[key]:.1f}" for key in ("gap", "gap low", "gap high"))
        far = f"{points} points (95 % interval {low} to {high}), {gap['verdict']} (p {gap['p corrected']:.3f})"
        print(f"  {what}: {gap['highest']} {gap['high']:.1%}, {gap['lowest']} {gap['low']:.1%}: {far}")
    print()
