"""Comparison of several runs, with significance tests on their common test images."""

import math
from typing import Any, NamedTuple

import numpy as np

from project.errors import UserError
from project.report.settings import flat_options
from project.report.summary import charts, render, tiles
from project.runs.label_predictions import LabelPredictions
from project.runs.predictions import Predictions
from project.runs.read import Run
from project.runs.statistics import Interval, holm_correction
from project.runs.value_predictions import ValuePredictions


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
    """Return the HTML page that compares each run with the first one.

    Raises:
        UserError: A run has no tested samples, or the runs have different kinds of targets.
    """
    if empty := [run.name for run in runs if not run.rows]:
        raise UserError(f"{empty[0]} has no tested samples to compare")
    kinds = [run.target.get("kind", "another target") if run.predictions else "another target" for run in runs]
    for run, kind in zip(runs, kinds, strict=True):
        if kind != kinds[0]:
            raise UserError(f"{runs[0].name} is a run with {kinds[0]}, {run.name} with {kind}: they cannot be compared")
    tested = [run.predictions for run in runs if isinstance(run.predictions, Predictions)]
    folders = [run.facts.get("folder") for run in runs]
    others = zip(tested[1:], folders[1:], strict=False)
    comparisons = [compare(tested[0], each, folder == folders[0]) for each, folder in others]
    corrected = iter(holm_correction([result.p for result in comparisons if result.p is not None]))
    comparisons = [each if each.p is None else each._replace(p=next(corrected)) for each in comparisons]
    configs = [flat_options(run.config) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config if name != "ckpt_path")
    columns = [(name, [config.get(name, "–") for config in configs]) for name in names]
    results = [(run, each, _conclusion(runs[0], run, each)) for run, each in zip(runs[1:], comparisons, strict=False)]
    page: dict[str, Any] = {"runs": runs, "tested": tested, "folders": folders, "results": results}
    same = {(run.facts.get("folder"), frozenset(run.predictions.paths if run.predictions else ())) for run in runs}
    page |= {"kind": kinds[0], "same_samples": len(same) == 1, "sample": runs[0].facts.get("kind", "image")}
    page |= {"rows": _metrics(runs), "charts": charts(runs), "singles": _singles(runs)}
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
    assert isinstance(one.predictions, Predictions) and isinstance(other.predictions, Predictions)
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


class Singles(NamedTuple):
    """A metric of each class, label or value that all runs have, by ascending difference of the last and first run."""

    title: str  # e.g. per-class recall
    rows: list[tuple[str, list[float], float]]  # name, metric of each run, difference
    shares: bool  # True if the metric is a share


def _singles(runs: list[Run]) -> Singles | None:
    """Return the comparison of single classes, labels or values; None for custom targets."""
    title, columns = "", []
    for run in runs:
        if isinstance(run.predictions, Predictions):
            title, values = "Per-class recall", run.predictions.per_class["recall"]
        elif isinstance(run.predictions, LabelPredictions):
            title, values = "Per-label average precision", run.predictions.per_label["average_precision"]
        elif isinstance(run.predictions, ValuePredictions):
            title, values = "Per-value MAE", run.predictions.per_value["mae"]
        else:
            return None
        columns.append(dict(zip(run.predictions.names, values.tolist(), strict=True)))
    rows = [(name, [column[name] for column in columns]) for name in columns[0] if all(name in c for c in columns)]
    compared = [(name, values, values[-1] - values[0]) for name, values in rows]
    return Singles(title, sorted(compared, key=lambda row: (np.isnan(row[2]), row[2])), title != "Per-value MAE")
