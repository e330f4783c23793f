"""What all pages are made of: the template, figures in words, those one wants first, and the curves."""

from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup

from project.output import format_duration
from project.report.charts import Curve, line_chart
from project.runs.read import Run

OF_CLASSES = {"loss", "acc", "precision", "recall", "f1", "calibration_error", "brier"}  # of every classification
POINTS, STYLES = 300, 6  # points of a curve that are drawn, and kinds of line in a chart


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The figures a person wants first: name, value, remark."""
    facts, tested, best = run.facts, run.predictions, run.best
    split = facts.get("split", "test")
    scalars = facts.get("scalars", {}).items()
    found = [(name, f"{value:.4f}", split) for name, value in scalars if not tested or name not in OF_CLASSES]
    if tested:
        low, high = tested.interval
        remark = f"95\u00a0% interval {100 * low:.2f}\u00a0to\u00a0{100 * high:.2f}\u00a0%"
        found.append(("Accuracy", percent(tested.accuracy), remark))
    if best:
        last = int(max(row["epoch"] for row in run.epochs)) + 1
        score = f", val accuracy {percent(best['val/acc'])}" if "val/acc" in best else ""
        found.append(("Best epoch", f"{int(best['epoch']) + 1}", f"of {last}{score}"))
    if (seconds := facts.get("seconds_of_training")) is not None:
        found.append(
            ("Training time", format_duration(seconds), "since it was continued" if len(run.starts) > 1 else "")
        )
    if "parameters" in facts:
        found.append(("Parameters", short(facts["parameters"]), f"{facts['net']}, {facts['parameters']:,}"))
    kind = facts.get("kind", "image")
    if tested:
        found.append(("Tested on", f"{len(tested.paths):,}", f"{split} {kind}s, {len(tested.names):,} classes"))
    if privacy := facts.get("notes", {}).get("privacy"):
        found.append(("Privacy", f"ε {privacy['epsilon']:.2f}", f"at delta {privacy['delta']:g}, a train {kind}"))
    if tested:
        found.append(("Calibration error", percent(tested.calibration_error), "expected, 0 is best"))
    return found


def charts(runs: list[Run]) -> list[tuple[str, Markup, list[Curve]]]:
    """Title, drawing and curves of each chart that there are figures for."""
    plain: Callable[[float], str] = "{:g}".format
    kinds = (("Loss", "loss", plain), ("Accuracy", "acc", lambda y: f"{100 * y:g} %"))
    found = []
    for title, name, form in kinds:
        if len(runs) == 1:
            found.append((title, {split: _points(runs[0], f"{split}/{name}") for split in ("train", "val")}, form))
        else:
            found.append((f"Val {title.lower()}", {run.name: _points(run, f"val/{name}") for run in runs}, form))
    if len(runs) == 1:
        found.append(("Learning rate", {"of each step": _points(runs[0], "train/learning_rate")}, plain))
    mark = runs[0].best["epoch"] + 1 if len(runs) == 1 and runs[0].best else None
    drawn = []
    for title, columns, form in found:
        curves = [Curve(name, f"s{i % STYLES}", points) for i, (name, points) in enumerate(columns.items()) if points]
        if drawing := line_chart(curves, title, form, mark):
            drawn.append((title, drawing, curves))
    return drawn


def _points(run: Run, name: str) -> list[tuple[float, float]]:
    """A column of metrics.csv against the epochs that were done by then; evenly thinned to `POINTS`."""
    ends = {row["step"] + 1: row["epoch"] + 1 for row in run.metrics if "epoch" in row and "train/loss" in row}
    steps, epochs = [0.0, *ends], [0.0, *ends.values()]
    if ends:  # steps beyond the last epoch that came to its end are as long as those before
        steps.append(2 * steps[-1])
        epochs.append(2 * epochs[-1])
    rows = [row for row in run.metrics if name in row]
    kept = [rows[i] for i in np.linspace(0, len(rows) - 1, min(len(rows), POINTS)).round().astype(int)]
    return [(float(np.interp(row["step"] + 1, steps, epochs)), row[name]) for row in kept]


def render(name: str, **context: Any) -> str:
    """A page from the template of that name, with everything that comes from a run escaped."""
    from jinja2 import Environment, PackageLoader

    jinja = Environment(loader=PackageLoader("project.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"percent": percent, "points": points, "chance": chance}
    return jinja.get_template(name).render(**context)


def percent(share: float, digits: int = 2) -> str:
    """0.9734 as 97.34 % on one line; a dash where there is nothing to say."""
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float) -> str:
    """0.0123 as +1.23; a dash where there is nothing to say."""
    return "–" if np.isnan(difference) else f"{100 * difference:+.2f}".replace("-", "−")


def chance(p: float) -> str:
    """A p-value: = 0.032, < 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def short(number: int) -> str:
    """4275594 as 4.28 M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
