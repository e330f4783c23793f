"""Comparison of several runs, with significance tests on their common test images."""

import math
from typing import Any, NamedTuple

import numpy as np

from project.errors import UserError
from project.report.settings import flat_options
from project.report.summary import charts, render, tiles
from project.runs.predictions import Predictions
from project.runs.read import Run
from project.runs.statistics import Interval, holm_correction


class Comparison(NamedTuple):
    """Result of comparing a second run with a first one."""

    images: int  # number of common test images; 0 if the test sets are disjoint
    same: bool  # True if both have the same test set
    accuracies: tuple[float, float]  # of both runs, on the common images, or else each on its own
    difference: float  # second accuracy minus the first
    interval: Interval  # 95 % confidence interval of the difference
    gained: int  # images that only the second run classifies correctly
    lost: int  # images that only the first run classifies correctly
    p: float | None  # p-value of McNemar's test; None without common images


def comparison_page(runs: list[Run]) -> str:
    """Return the HTML page that compares each run with the first one."""
    if empty := [run.name for run in runs if run.predictions is None]:
        raise UserError(f"{empty[0]} has no tested images to compare")
    tested = [run.predictions for run in runs if run.predictions is not None]
    folders = [run.facts.get("folder") for run in runs]
    others = zip(tested[1:], folders[1:], strict=True)
    comparisons = [compare(tested[0], each, folder == folders[0]) for each, folder in others]
    corrected = iter(holm_correction([result.p for result in comparisons if result.p is not None]))
    comparisons = [each if each.p is None else each._replace(p=next(corrected)) for each in comparisons]
    configs = [flat_options(run.config) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config if name != "ckpt_path")
    columns = [(name, [config.get(name, "–") for config in configs]) for name in names]
    results = [(run, each, _conclusion(runs[0], run, each)) for run, each in zip(runs[1:], comparisons, strict=True)]
    page: dict[str, Any] = {"runs": runs, "tested": tested, "folders": folders, "results": results}
    page |= {"rows": _metrics(runs), "charts": charts(runs), "classes": _recalls(tested)}
    differing = [(name, values) for name, values in columns if len(set(values)) > 1]
    return render("comparison.html", **page, differing=differing)


def compare(one: Predictions, other: Predictions, same_folder: bool = True) -> Comparison:
    """Compare the accuracy of two runs on their common test images, or as independent proportions without any.

    Images with the same path and class are the same image; with different dataset directories, only if the test sets
    match completely.
    """
    outcomes = [
        {
            (path, p.names[label]): correct
            for path, label, correct in zip(p.paths, p.label, p.correct.tolist(), strict=True)
        }
        for p in (one, other)
    ]
    same = outcomes[0].keys() == outcomes[1].keys()
    common = outcomes[0].keys() & outcomes[1].keys() if same or same_folder else set()
    if not common:  # Newcombe, Interval Estimation for the Difference Between Independent Proportions, 1998, method 10
        difference = other.accuracy - one.accuracy
        (a_low, a_high), (b_low, b_high) = one.interval, other.interval
        low = difference - math.hypot(other.accuracy - b_low, a_high - one.accuracy)
        high = difference + math.hypot(b_high - other.accuracy, one.accuracy - a_low)
        return Comparison(0, False, (one.accuracy, other.accuracy), difference, (low, high), 0, 0, None)
    from scipy.stats import binomtest

    pairs = np.array([(outcomes[0][image], outcomes[1][image]) for image in common])
    gained, lost = int((~pairs[:, 0] & pairs[:, 1]).sum()), int((pairs[:, 0] & ~pairs[:, 1]).sum())
    images = len(pairs)
    # Agresti, Min, Simple Improved Confidence Intervals for Comparing Matched Proportions, 2005
    center = (gained - lost) / (images + 2)
    spread = 1.959964 * math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / (images + 2)) / (images + 2)
    # McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions, 1947; the exact test
    p = binomtest(lost, gained + lost).pvalue if gained + lost else 1.0
    first, second = pairs.mean(0).tolist()
    interval = center - spread, center + spread
    return Comparison(images, same, (first, second), (gained - lost) / images, interval, gained, lost, float(p))


def _conclusion(one: Run, other: Run, result: Comparison) -> str:
    """Return the conclusion of a comparison in one sentence."""
    assert one.predictions and other.predictions
    if not {*one.predictions.names} & {*other.predictions.names}:
        return f"{other.name} and {one.name} have no classes in common."
    low, high = result.interval
    if not (low > 0 or high < 0 if result.p is None else result.p < 0.05):
        return f"No statistically significant difference between {other.name} and {one.name}."
    more = "more" if result.difference > 0 else "less"
    return f"{other.name} is significantly {more} accurate than {one.name}."


def _metrics(runs: list[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the name of each metric, with its value and a remark for each run."""
    columns = [{name: (value, remark) for name, value, remark in tiles(run)} for run in runs]
    for column, run in zip(columns, runs, strict=True):
        if "loss" in run.facts:
            column["Loss"] = f"{run.facts['loss']:.4f}", ""
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, ("–", "")) for column in columns]) for name in names]


def _recalls(tested: list[Predictions]) -> list[tuple[str, list[float], float]]:
    """Return name, recall in each run, and last minus first recall, for the classes that all runs have."""
    recalls = [dict(zip(each.names, each.per_class["recall"].tolist(), strict=True)) for each in tested]
    rows = [(name, [recall[name] for recall in recalls]) for name in recalls[0] if all(name in r for r in recalls)]
    compared = [(name, values, values[-1] - values[0]) for name, values in rows]
    return sorted(compared, key=lambda row: (np.isnan(row[2]), row[2]))
