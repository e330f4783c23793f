"""The page of several runs, and how one does against another on the images that both were tested on."""

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
    """How one run does against another."""

    images: int  # on how many both were tested; 0 where their test sets have none in common
    same: bool  # whether those are all images of both
    accuracies: tuple[float, float]  # of either, on those images, else each on its own
    difference: float  # the second accuracy less the first
    interval: Interval  # of the difference, 95 %
    gained: int  # images that only the second has right
    lost: int  # images that only the first has right
    p: float | None  # how often chance alone gives so uneven a pair of these; None without images in common


def comparison_page(runs: list[Run]) -> str:
    """The page of several runs; the first is what the others are compared with."""
    if empty := [run.name for run in runs if run.predictions is None]:
        raise UserError(f"{empty[0]} was tested on no image: there is nothing to compare")
    tested = [run.predictions for run in runs if run.predictions is not None]
    folders = [run.facts.get("folder") for run in runs]
    others = zip(tested[1:], folders[1:], strict=True)
    found = [compare(tested[0], each, folder == folders[0]) for each, folder in others]
    corrected = iter(holm_correction([result.p for result in found if result.p is not None]))
    found = [result if result.p is None else result._replace(p=next(corrected)) for result in found]
    configs = [flat_options(run.config) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config if name != "ckpt_path")
    columns = [(name, [config.get(name, "–") for config in configs]) for name in names]
    results = [(run, result, _verdict(runs[0], run, result)) for run, result in zip(runs[1:], found, strict=True)]
    page: dict[str, Any] = {"runs": runs, "tested": tested, "folders": folders, "results": results}
    page |= {"rows": _side_by_side(runs), "charts": charts(runs), "classes": _class_comparison(tested)}
    differing = [(name, values) for name, values in columns if len(set(values)) > 1]
    return render("comparison.html", **page, differing=differing)


def compare(one: Predictions, other: Predictions, same_folder: bool = True) -> Comparison:
    """Compare two runs on the images that both were tested on, or else each on its own."""
    # Images are the same if their paths and true classes are; in two folders, if those of all images are.
    rights = [
        {(path, p.names[label]): right for path, label, right in zip(p.paths, p.label, p.correct.tolist(), strict=True)}
        for p in (one, other)
    ]
    same = rights[0].keys() == rights[1].keys()
    common = rights[0].keys() & rights[1].keys() if same or same_folder else set()
    if not common:  # Newcombe, Interval Estimation for the Difference Between Independent Proportions, 1998, method 10
        difference = other.accuracy - one.accuracy
        (a_low, a_high), (b_low, b_high) = one.interval, other.interval
        low = difference - math.hypot(other.accuracy - b_low, a_high - one.accuracy)
        high = difference + math.hypot(b_high - other.accuracy, one.accuracy - a_low)
        return Comparison(0, False, (one.accuracy, other.accuracy), difference, (low, high), 0, 0, None)
    from scipy.stats import binomtest

    pairs = np.array([(rights[0][image], rights[1][image]) for image in common])
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


def _verdict(one: Run, other: Run, result: Comparison) -> str:
    """What a comparison allows to say, in one sentence."""
    assert one.predictions and other.predictions
    if not {*one.predictions.names} & {*other.predictions.names}:
        return f"{other.name} and {one.name} have no classes in common."
    low, high = result.interval
    if not (low > 0 or high < 0 if result.p is None else result.p < 0.05):
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
    found = [(name, values, values[-1] - values[0]) for name, values in rows]
    return sorted(found, key=lambda row: (np.isnan(row[2]), row[2]))
