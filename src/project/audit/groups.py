"""`python -m project groups RUN`: whether a model serves all groups of images alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.audit.gaps import DRAWS, FIGURES, SMALL, Gap, Grouping, find_gap
from project.errors import UserError
from project.files import read_table, write_table
from project.report.figures import Predictions, holm, wilson
from project.report.read import Run, read_run

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
        values = _read(table or _labels(found), columns, tested)
    groupings = [_grouping(title, each, tested) for title, each in values.items()]
    if len(values) > 1:
        together = [" and ".join(parts) if all(parts) else "" for parts in zip(*values.values(), strict=True)]
        groupings.append(_grouping(" and ".join(values), together, tested))
    draws = max(DRAWS, 100 * len(groupings) * len(FIGURES))  # else no p could stay below 0.05 once it is corrected
    gaps = [gap for each in groupings for figure in FIGURES if (gap := find_gap(each, figure, draws))]
    corrected = holm([gap.p for gap in gaps])
    for each in groupings:
        print(
            *_lines(each, [(gap, p) for gap, p in zip(gaps, corrected, strict=True) if gap.title == each.title]),
            sep="\n",
        )
    write_table(found.folder / GROUPS, [row for each in groupings for row in _group_rows(each)])
    write_table(found.folder / GAPS, [_gap_row(gap, p) for gap, p in zip(gaps, corrected, strict=True)], ["groups"])
    print(f"{found.folder / GROUPS}, {found.folder / GAPS}")


def _folder(path: str, level: int) -> str:
    folders = path.split("/")[:-1]
    if level not in range(len(folders)):
        raise UserError(f"{path} has no folder {level}: it has {len(folders)}, counted from 0")
    return folders[level]


def _labels(run: Run) -> Path:
    labels = (run.config.get("data") or {}).get("labels")
    if not labels:
        raise UserError("this run was not trained with a labels CSV: give a table of groups by --table FILE.csv")
    return Path(labels)


def _read(table: Path, columns: Sequence[str], tested: Predictions) -> dict[str, list[str]]:
    """The entry of each tested image in each column; empty where the table does not say."""
    known = {row["path"]: row for row in read_table(table, ["path", *columns])}
    missing = [path for path in tested.paths if path not in known]
    if len(missing) == len(tested.paths):
        raise UserError(f"{table} names none of the tested images: its paths are to be like {missing[0]}")
    if missing:
        print(
            f"{len(missing):,} of {len(tested.paths):,} tested images are not in {table} and left out, such as"
            f" {missing[0]}"
        )
    return {column: [known[path][column] if path in known else "" for path in tested.paths] for column in columns}


def _grouping(title: str, values: list[str], tested: Predictions) -> Grouping:
    names = sorted(set(values) - {""})
    if len(names) < 2:
        raise UserError(
            f"all tested images have the same entry in {title}, '{''.join(names)}': there are no groups to compare"
        )
    told = np.flatnonzero([value != "" for value in values])
    place = {name: number for number, name in enumerate(names)}
    return Grouping(title, names, np.array([place[values[row]] for row in told]), tested.some(told))


def _group_rows(grouping: Grouping) -> list[dict[str, Any]]:
    figures = {figure: grouping.rates(figure) for figure in FIGURES}
    rows = []
    for number, name in enumerate(grouping.names):
        right = grouping.tested.right[grouping.group == number]
        low, high = wilson(int(right.sum()), len(right))
        row = {"groups": grouping.title, "group": name, "images": len(right), "small": len(right) < SMALL}
        row |= {"accuracy": figures["accuracy"][number, 0], "accuracy low": low, "accuracy high": high}
        row |= {figure: figures[figure][number, 0] for figure in ("mean recall", "calibration error")}
        for figure in ("recall", "selection rate"):
            row |= {f"{figure} {c}": figures[figure][number, i] for i, c in enumerate(grouping.tested.names)}
        rows.append(row)
    return rows


def _gap_row(gap: Gap, p: float) -> dict[str, Any]:
    row: dict[str, Any] = {"groups": gap.title, "figure": gap.figure, "class": gap.class_name}
    row |= {"highest": gap.high, "lowest": gap.low, "high": gap.values[0], "low": gap.values[1], "gap": gap.size}
    row |= {"gap low": gap.interval[0], "gap high": gap.interval[1], "p": gap.p, "p corrected": p}
    return row | {"verdict": verdict(p)}


def verdict(p: float) -> str:
    """What may be said of a gap, by its p-value corrected for all gaps that were looked at."""
    return "more than noise" if p < 0.05 else "within noise"


def _lines(grouping: Grouping, gaps: list[tuple[Gap, float]]) -> list[str]:
    rows = _group_rows(grouping)
    width = max(len(grouping.title), *(len(row["group"]) for row in rows)) + 2
    lines = [
        f"\n{grouping.title:<{width}}{'images':>8}{'accuracy':>10}{'95 % interval':>20}{'mean recall':>13}"
        f"{'calibration error':>19}"
    ]
    for row in rows:
        interval = f"{row['accuracy low']:.1%} to {row['accuracy high']:.1%}"
        lines.append(
            f"{row['group']:<{width}}{row['images']:>8,}{row['accuracy']:>10.1%}{interval:>20}"
            f"{row['mean recall']:>13.1%}{row['calibration error']:>19.3f}"
            f"{'  small, not compared' if row['small'] else ''}"
        )
    compared = [row for row in rows if not row["small"]]
    if not gaps:
        return [*lines, f"fewer than two groups hold {SMALL} images: nothing is compared", ""]
    worst = min(compared, key=lambda row: row["accuracy"])
    lines += [f"worst group: {worst['group']}, accuracy {worst['accuracy']:.1%}", "largest gaps:"]
    for gap, p in gaps:
        what = f"{gap.figure} of {gap.class_name}" if gap.class_name else gap.figure
        low, high = (100 * edge for edge in gap.interval)
        lines.append(
            f"  {what}: {gap.high} {gap.values[0]:.1%}, {gap.low} {gap.values[1]:.1%}: {100 * gap.size:.1f} points"
            f" (95 % interval {low:.1f} to {high:.1f}), {verdict(p)} (p {p:.3f})"
        )
    return [*lines, ""]
