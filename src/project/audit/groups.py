"""The command `groups`: evaluation by subgroup."""

from pathlib import Path
from typing import Any

import numpy as np

from project.audit.gaps import MIN_IMAGES, Grouping, largest_gap
from project.audit.group_table import read_groups
from project.audit.read_results import read_results
from project.audit.results import RESAMPLES, Results
from project.errors import UserError
from project.files import write_table
from project.runs.read import read_run
from project.runs.statistics import holm_correction

GROUPS, GAPS = "groups.csv", "gaps.csv"


def groups(
    run: Path, column: str | list[str] | None = None, table: Path | None = None, folder_level: int | None = None
) -> None:
    """Compare subgroups of the tested samples; writes groups.csv and gaps.csv into the run folder.

    Args:
        run: Folder of a tested run, e.g. logs/NAME/version_N, or `last`.
        column: Column of the table with the group of each sample. Several columns, given as a list '[skin_type, sex]',
            are also combined.
        table: CSV, TSV or Parquet file with a column of paths or texts, as in test_predictions.csv, and the given
            columns; by default the table that the run was trained with.
        folder_level: Group by a folder of the image path instead of a column; 0 is the first one.

    Raises:
        UserError: the run has no tested samples, or no groups can be formed.
    """
    loaded = read_run(run)
    tested, units = read_results(loaded), f"{loaded.facts.get('kind', 'image')}s"
    columns = [column] if isinstance(column, str) else column or []
    if (folder_level is None) == (not columns):
        raise UserError("give either --column NAME, a column of a table, or --folder_level 0")
    if folder_level is not None:
        if loaded.key != "path":
            raise UserError(f"--folder_level is for samples with paths, and those of this run are {loaded.key}s")
        values = {f"folder {folder_level}": [_folder(path, folder_level) for path in tested.paths]}
    else:
        data = loaded.config.get("data") or {}
        data = data.get("init_args", data)
        table = table or data.get("table")
        if not table:
            raise UserError("this run was not trained with a table: give a table of groups with --table FILE.csv")
        key_column = (data.get("columns") or {}).get(loaded.key, loaded.key)
        values = read_groups(Path(table), loaded.key, key_column, columns, tested.paths, units)
    groupings = [_grouping(title, each, tested, units) for title, each in values.items()]
    if len(values) > 1:
        combined = [" and ".join(parts) if all(parts) else "" for parts in zip(*values.values(), strict=True)]
        groupings.append(_grouping(" and ".join(values), combined, tested, units))
    # With fewer permutations no p-value could be below 0.05 after correction.
    permutations = max(RESAMPLES, 100 * len(groupings) * len(tested.metrics))
    gaps = [gap for each in groupings for metric in tested.metrics if (gap := largest_gap(each, metric, permutations))]
    for gap, p in zip(gaps, holm_correction([gap["p"] for gap in gaps]), strict=True):
        gap |= {"p corrected": p, "verdict": "significant" if p < 0.05 else "not significant"}
    rows = []
    for each in groupings:
        group_rows = _rows(each, units)
        _print(each, units, group_rows, [gap for gap in gaps if gap["groups"] == each.title])
        rows += group_rows
    write_table(loaded.folder / GROUPS, rows)
    write_table(loaded.folder / GAPS, gaps, ["groups"])
    print(f"{loaded.folder / GROUPS}, {loaded.folder / GAPS}")


def _folder(path: str, level: int) -> str:
    folders = path.split("/")[:-1]
    if level not in range(len(folders)):
        raise UserError(f"{path} has no folder {level}: it has {len(folders)}, counted from 0")
    return folders[level]


def _grouping(title: str, values: list[str], tested: Results, units: str) -> Grouping:
    known = np.flatnonzero([value != "" for value in values])
    names, group = np.unique(np.array(values)[known], return_inverse=True)
    if len(names) < 2:
        raise UserError(f"all tested {units} have the same value of {title}, '{''.join(names)}': no groups to compare")
    return Grouping(title, names.tolist(), group, tested.subset(known))


def _rows(grouping: Grouping, units: str) -> list[dict[str, Any]]:
    """Return the rows of groups.csv."""
    tested = grouping.tested
    rates = {metric: grouping.rates(metric) for metric in tested.metrics}
    rows = []
    for number, name in enumerate(grouping.names):
        members = tested.subset(np.flatnonzero(grouping.group == number))
        low, high = members.interval()
        row = {"groups": grouping.title, "group": name, units: len(members), "small": len(members) < MIN_IMAGES}
        for metric, values in rates.items():
            columns = [metric] if values.shape[1] == 1 else [f"{metric} {column}" for column in tested.columns]
            row |= dict(zip(columns, values[number].tolist(), strict=True))
            if metric == tested.metrics[0]:
                row |= {f"{columns[0]} low": low, f"{columns[0]} high": high}
        rows.append(row)
    return rows


def _print(grouping: Grouping, units: str, rows: list[dict[str, Any]], gaps: list[dict[str, Any]]) -> None:
    tested, title = grouping.tested, grouping.title
    shown = tested.shown
    first, form = shown[0], {metric: tested.form(metric) for metric in shown}
    width = max(len(title), *(len(row["group"]) for row in rows)) + 2
    widths = {metric: max(10, len(metric) + 2) for metric in shown}
    heads = [f"{metric:>{widths[metric]}}" for metric in shown]
    heads.insert(1, f"{'95 % CI':>20}")
    print(f"\n{title:<{width}}{units:>8}{''.join(heads)}")
    for row in rows:
        interval = " to ".join(f"{row[f'{first} {end}']:{form[first]}}" for end in ("low", "high"))
        cells = [f"{row[metric]:>{widths[metric]}{form[metric]}}" for metric in shown]
        small = "  small, not compared" if row["small"] else ""
        print(f"{row['group']:<{width}}{row[units]:>8,}{cells[0]}{interval:>20}{''.join(cells[1:])}{small}")
    if not gaps:
        print(f"fewer than two groups have at least {MIN_IMAGES} {units}: nothing to compare\n")
        return
    sign = -1 if tested.lower_is_better else 1
    compared = [row for row in rows if not row["small"] and not np.isnan(row[first])]
    if compared:
        worst = min(compared, key=lambda row: sign * row[first])
        print(f"worst group: {worst['group']}, {first} {worst[first]:{form[first]}}")
    print("largest gaps:")
    percent = form[first].endswith("%")
    for gap in gaps:
        metric = f"{gap['figure']} of {gap['class']}" if gap["class"] else gap["figure"]
        numbers = (gap[key] for key in ("gap", "gap low", "gap high"))
        points, low, high = (f"{100 * each:.1f}" if percent else f"{each:.4g}" for each in numbers)
        best, least = (f"{gap[key]:{'.1%' if percent else '.4g'}}" for key in ("high", "low"))
        result = (
            f"{points}{' points' * percent} (95 % CI {low} to {high}), {gap['verdict']} (p = {gap['p corrected']:.3f})"
        )
        print(f"  {metric}: {gap['highest']} {best}, {gap['lowest']} {least}: {result}")
    print()
