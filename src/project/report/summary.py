"""What the page of one run and the page of several both show: the figures one wants first, and the curves."""

from collections.abc import Callable
from typing import Any

import numpy as np

from project.report.charts import Curve, line_chart
from project.report.read import Run
from project.report.render import percent, short
from project.words import duration

STYLES = 6
"""Kinds of line in a chart."""


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The figures a person wants first: name, value, remark."""
    facts, tested, best = run.facts, run.predictions, run.best
    found = []
    if tested:
        low, high = tested.interval
        remark = f"95\u00a0% interval {100 * low:.2f}\u00a0to\u00a0{100 * high:.2f}\u00a0%"
        found.append(("Accuracy", percent(tested.accuracy), remark))
    if best:
        last = int(max(row["epoch"] for row in run.metrics if "epoch" in row and "test/acc" not in row)) + 1
        score = f", val accuracy {percent(best['val/acc'])}" if "val/acc" in best else ""
        found.append(("Best epoch", f"{int(best['epoch']) + 1}", f"of {last}{score}"))
    if (seconds := facts.get("seconds_of_training")) is not None:
        found.append(("Training time", duration(seconds), "since it was continued" if len(run.starts) > 1 else ""))
    if "parameters" in facts:
        found.append(("Parameters", short(facts["parameters"]), f"{facts['net']}, {facts['parameters']:,}"))
    if tested:
        images = f"{facts.get('split', 'test')} images, {len(tested.names):,} classes"
        found.append(("Tested on", f"{len(tested.paths):,}", images))
        if privacy := facts.get("privacy"):
            found.append(("Privacy", f"ε {privacy['epsilon']:.2f}", f"at delta {privacy['delta']:g}, a train image"))
        found.append(("Calibration error", percent(tested.calibration_error), "expected, 0 is best"))
    return found


def charts(runs: list[Run]) -> list[tuple[str, Any, list[tuple[str, str]]]]:
    """Title, drawing and legend of each chart that there are figures for."""
    found = []
    forms: dict[str, tuple[str, Callable[[float], str]]] = {
        "Loss": ("loss", lambda y: f"{y:g}"),
        "Accuracy": ("acc", lambda y: f"{100 * y:g} %"),
    }
    for title, (name, form) in forms.items():
        if len(runs) == 1:
            curves = [
                Curve("train", "s0", _points(runs[0], f"train/{name}")),
                Curve("val", "s1", _points(runs[0], f"val/{name}")),
            ]
        else:
            curves = [Curve(run.name, f"s{i % STYLES}", _points(run, f"val/{name}")) for i, run in enumerate(runs)]
            title = f"Val {title.lower()}"
        found.append((title, curves, form))
    if len(runs) == 1:
        rates = [Curve("of each step", "s0", _points(runs[0], "train/learning_rate"))]
        found.append(("Learning rate", rates, lambda y: f"{y:g}"))
    mark = runs[0].best["epoch"] + 1 if len(runs) == 1 and runs[0].best else None
    return [
        (title, drawing, [(curve.name, curve.style) for curve in curves if curve.name and curve.points])
        for title, curves, form in found
        if (drawing := line_chart(curves, title, "epoch", form, mark))
    ]


def _points(run: Run, name: str) -> list[tuple[float, float]]:
    """A column of metrics.csv against the epochs that were done by then."""
    ends = {row["step"] + 1: row["epoch"] + 1 for row in run.metrics if "epoch" in row and "train/loss" in row}
    steps, epochs = [0.0, *ends], [0.0, *ends.values()]
    if ends:  # steps beyond the last epoch that came to its end are as long as those before
        steps.append(2 * steps[-1])
        epochs.append(2 * epochs[-1])
    rows = [row for row in run.metrics if name in row]
    return [(float(np.interp(row["step"] + 1, steps, epochs)), row[name]) for row in rows]
