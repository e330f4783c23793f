"""The page of several runs."""

import numpy as np

from project.errors import UserError
from project.parser import flatten
from project.report.figures import Comparison, Predictions, compare, holm
from project.report.read import Run
from project.report.render import render
from project.report.settings import plain_name, text
from project.report.summary import charts, tiles


def comparison_page(runs: list[Run]) -> str:
    """The page of several runs; the first is what the others are compared with."""
    if empty := [run.name for run in runs if run.predictions is None]:
        raise UserError(f"{empty[0]} was tested on no image: there is nothing to compare")
    tested = [run.predictions for run in runs if run.predictions is not None]
    folders = [run.facts.get("folder") for run in runs]
    results = [
        compare(tested[0], each, folders[0] == folder) for each, folder in zip(tested[1:], folders[1:], strict=True)
    ]
    corrected = iter(holm([result.p for result in results if result.p is not None]))
    p_values = [None if result.p is None else next(corrected) for result in results]
    flat = [{plain_name(name): text(value) for name, value in flatten(run.config).items()} for run in runs]
    names = dict.fromkeys(name for config in flat for name in config if name != "ckpt_path")
    columns = [(name, [config.get(name, "–") for config in flat]) for name in names]
    return render(
        "comparison.html",
        runs=runs,
        tested=tested,
        rows=_side_by_side(runs),
        results=[
            (run, r, p, _verdict(runs[0], run, r, p)) for run, r, p in zip(runs[1:], results, p_values, strict=True)
        ],
        folders=folders,
        charts=charts(runs),
        classes=_class_comparison(tested),
        differing=[(name, values) for name, values in columns if len(set(values)) > 1],
    )


def _verdict(one: Run, other: Run, result: Comparison, p: float | None) -> str:
    """What a comparison allows to say, in one sentence."""
    assert one.predictions and other.predictions
    if not {*one.predictions.names} & {*other.predictions.names}:
        return f"{other.name} and {one.name} have no classes in common."
    low, high = result.interval
    clear = p < 0.05 if p is not None else low > 0 or high < 0
    if not clear:
        return f"No difference between {other.name} and {one.name} can be told from chance."
    more = "more" if result.difference > 0 else "less"
    return f"{other.name} is {more} accurate than {one.name}, by more than chance explains."


def _side_by_side(runs: list[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each figure's name, and its value and a remark in each run."""
    columns = [{name: (value, remark) for name, value, remark in tiles(run)} for run in runs]
    for column, run in zip(columns, runs, strict=True):
        if "loss" in run.facts:
            column["Loss"] = f"{run.facts['loss']:.4f}", ""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, ("–", "")) for column in columns]) for name in names]


def _class_comparison(tested: list[Predictions]) -> list[tuple[str, list[float], float]]:
    """Name, recall in each run, and the last run's less the first's, for classes that all know."""
    recalls = [dict(zip(each.names, each.per_class["recall"].tolist(), strict=True)) for each in tested]
    rows = [(name, [recall[name] for recall in recalls]) for name in recalls[0] if all(name in r for r in recalls)]
    return sorted(
        ((name, values, values[-1] - values[0]) for name, values in rows), key=lambda row: (np.isnan(row[2]), row[2])
    )
