"""Parts shared by the report and the comparison: templates, formatting, summary tiles and training curves."""

from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup

from project.output import format_duration
from project.report.charts import Curve, line_chart
from project.runs.read import Run

# Of every classification; accuracy and calibration error have their own tiles.
CLASSIFICATION = {"loss", "acc", "precision", "recall", "f1", "calibration_error", "brier"}
POINTS, STYLES = 300, 6  # maximum points of a curve, and number of line styles


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return name, value and remark of each summary tile."""
    facts, tested, best = run.facts, run.predictions, run.best
    split = facts.get("split", "test")
    scalars = facts.get("scalars", {}).items()
    summary = [(name, f"{value:.4f}", split) for name, value in scalars if not tested or name not in CLASSIFICATION]
    if tested:
        low, high = tested.interval
        remark = f"95\u00a0% CI {100 * low:.2f}\u00a0to\u00a0{100 * high:.2f}\u00a0%"
        summary.append(("Accuracy", percent(tested.accuracy), remark))
    if best:
        last = int(max(row["epoch"] for row in run.epochs)) + 1
        score = f", val accuracy {percent(best['val/acc'])}" if "val/acc" in best else ""
        summary.append(("Best epoch", f"{int(best['epoch']) + 1}", f"of {last}{score}"))
    if (seconds := facts.get("seconds_of_training")) is not None:
        summary.append(
            ("Training time", format_duration(seconds), "since the last resume" if len(run.starts) > 1 else "")
        )
    if "parameters" in facts:
        summary.append(("Parameters", short(facts["parameters"]), f"{facts['net']}, {facts['parameters']:,}"))
    kind = facts.get("kind", "image")
    if tested:
        summary.append(("Evaluated on", f"{len(tested.paths):,}", f"{split} {kind}s, {len(tested.names):,} classes"))
    if privacy := facts.get("notes", {}).get("privacy"):
        summary.append(
            ("Differential privacy", f"ε {privacy['epsilon']:.2f}", f"at delta {privacy['delta']:g}, per train {kind}")
        )
    if tested:
        summary.append(("ECE", percent(tested.calibration_error), "expected calibration error"))
    return summary


def charts(runs: list[Run]) -> list[tuple[str, Markup, list[Curve]]]:
    """Return title, SVG and curves of each chart with data."""
    plain: Callable[[float], str] = "{:g}".format
    kinds = (("Loss", "loss", plain), ("Accuracy", "acc", lambda y: f"{100 * y:g} %"))
    series = []
    for title, name, format_y in kinds:
        if len(runs) == 1:
            series.append((title, {split: _points(runs[0], f"{split}/{name}") for split in ("train", "val")}, format_y))
        else:
            series.append((f"Val {title.lower()}", {run.name: _points(run, f"val/{name}") for run in runs}, format_y))
    if len(runs) == 1:
        series.append(("Learning rate", {"per step": _points(runs[0], "train/learning_rate")}, plain))
    mark = runs[0].best["epoch"] + 1 if len(runs) == 1 and runs[0].best else None
    drawn = []
    for title, columns, format_y in series:
        curves = [Curve(name, f"s{i % STYLES}", points) for i, (name, points) in enumerate(columns.items()) if points]
        if svg := line_chart(curves, title, format_y, mark):
            drawn.append((title, svg, curves))
    return drawn


def _points(run: Run, name: str) -> list[tuple[float, float]]:
    """Return a column of metrics.csv over the number of completed epochs, subsampled evenly to `POINTS` points."""
    ends = {row["step"] + 1: row["epoch"] + 1 for row in run.metrics if "epoch" in row and "train/loss" in row}
    steps, epochs = [0.0, *ends], [0.0, *ends.values()]
    if ends:  # extrapolate to the steps of an unfinished epoch
        steps.append(2 * steps[-1])
        epochs.append(2 * epochs[-1])
    rows = [row for row in run.metrics if name in row]
    kept = [rows[i] for i in np.linspace(0, len(rows) - 1, min(len(rows), POINTS)).round().astype(int)]
    return [(float(np.interp(row["step"] + 1, steps, epochs)), row[name]) for row in kept]


def render(name: str, **context: Any) -> str:
    """Render a template with autoescaping."""
    from jinja2 import Environment, PackageLoader

    jinja = Environment(loader=PackageLoader("project.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"percent": percent, "points": points, "p_value": p_value}
    return jinja.get_template(name).render(**context)


def percent(share: float, digits: int = 2) -> str:
    """Format 0.9734 as 97.34 %, and NaN as a dash."""
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float) -> str:
    """Format 0.0123 as +1.23, and NaN as a dash."""
    return "–" if np.isnan(difference) else f"{100 * difference:+.2f}".replace("-", "−")


def p_value(p: float) -> str:
    """Format a p-value, as `= 0.032` or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def short(number: int) -> str:
    """Format 4275594 as 4.28 M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
