"""Parts shared by the report and the comparison: templates, formatting, summary tiles and training curves."""

from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup

from project.output import format_duration
from project.report.charts import line_chart
from project.report.svg import Curve
from project.runs.predictions import Predictions
from project.runs.read import Run

METRICS = {
    "acc": "accuracy",
    "f1": "F1",
    "mAP": "mAP",
    "subset_acc": "subset accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "top5_acc": "top-5 accuracy",
    "kappa": "Cohen's kappa",
    "quadratic_kappa": "quadratic kappa",
    "brier": "Brier score",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "spearman": "Spearman",
    "loss": "loss",
}
"""Names of the metrics in prose."""
SHARES = {"acc", "f1", "mAP", "subset_acc", "auroc", "average_precision", "top5_acc"}
"""Metrics that are shown in percent."""
# No tiles: the loss, means that stand with the table of labels, and of classes also what has a tile already.
MEANS = {"loss", "precision", "recall"}
CLASSIFICATION = MEANS | {"acc", "f1", "calibration_error", "brier"}
POINTS, STYLES = 300, 6  # maximum points of a curve, and number of line styles


def headline(run: Run) -> tuple[str, str] | None:
    """Return name and format of the metric that the task shows next to the loss; None for a task without one."""
    shown = run.facts.get("headline", ("acc", ".2%"))  # missing if test.json is
    return (shown[0], shown[1]) if shown else None


def heading(name: str) -> str:
    """Return the name of a metric as a title, e.g. Subset accuracy."""
    text = METRICS.get(name, name)
    return text.capitalize() if name in METRICS and text.islower() else text


def in_percent(run: Run, name: str) -> bool:
    """Return True if a metric is shown in percent."""
    main = headline(run)
    return main[1].endswith("%") if main and name == main[0] else name in SHARES


def score(run: Run, name: str, value: float) -> str:
    """Return a metric as text, the headline in the format of the task."""
    main = headline(run)
    if in_percent(run, name):
        return percent(value)
    return format(value, main[1]) if main and name == main[0] else figure(value)


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return name, value and remark of each summary tile, the headline first."""
    facts, tested, best, rows = run.facts, run.predictions, run.best, run.rows
    split, kind = facts.get("split", "test"), facts.get("kind", "image")
    summary, classes = [], tested if isinstance(tested, Predictions) else None
    if classes:
        low, high = classes.interval
        remark = f"95\u00a0% CI {100 * low:.2f}\u00a0to\u00a0{100 * high:.2f}\u00a0%"
        summary.append(("Accuracy", percent(classes.accuracy), remark))
        summary.append(("ECE", percent(classes.calibration_error), "expected calibration error"))
    skipped = CLASSIFICATION if classes else MEANS if tested else set()
    scalars = {name: value for name, value in facts.get("scalars", {}).items() if name not in skipped}
    main = (headline(run) or ("",))[0]
    for name in sorted(scalars, key=lambda name: name != main):
        summary.append((heading(name), score(run, name, scalars[name]), split))
    if best:
        last = int(max(row["epoch"] for row in run.epochs)) + 1
        chosen = (run.config.get("checkpoint") or {}).get("monitor") or f"val/{main}"
        stage, _, name = chosen.rpartition("/")
        reached = f", {stage} {METRICS.get(name, name)} {score(run, name, best[chosen])}" if chosen in best else ""
        summary.append(("Best epoch", f"{int(best['epoch']) + 1}", f"of {last}{reached}"))
    if (seconds := facts.get("seconds_of_training")) is not None:
        summary.append(
            ("Training time", format_duration(seconds), "since the last resume" if len(run.starts) > 1 else "")
        )
    if "parameters" in facts:
        summary.append(("Parameters", short(facts["parameters"]), f"{facts['net']}, {facts['parameters']:,}"))
    if tested:
        outputs = f"{len(tested.names):,} {run.target['kind']}"
        outputs = outputs[:-1] if len(tested.names) == 1 and not classes else outputs
        summary.append(("Evaluated on", f"{rows:,}", f"{split} {kind}s, {outputs}"))
    if privacy := facts.get("notes", {}).get("privacy"):
        summary.append(
            ("Differential privacy", f"ε {privacy['epsilon']:.2f}", f"at delta {privacy['delta']:g}, per train {kind}")
        )
    return summary


def charts(runs: list[Run]) -> list[tuple[str, Markup, list[Curve]]]:
    """Return title, SVG and curves of each chart with data."""
    plain: Callable[[float], str] = "{:g}".format
    monitors = ((run.config.get("checkpoint") or {}).get("monitor") or "" for run in runs)
    names = [
        "loss",
        *(headline(runs[0]) or ())[:1],
        *(each.removeprefix("val/") for each in monitors if each.startswith("val/")),
    ]
    series = []
    for name in dict.fromkeys(names):
        title, format_y = heading(name), (lambda y: f"{100 * y:g} %") if in_percent(runs[0], name) else plain
        if len(runs) == 1:
            series.append((title, {split: _points(runs[0], f"{split}/{name}") for split in ("train", "val")}, format_y))
        else:
            series.append(
                (f"Val {METRICS.get(name, name)}", {run.name: _points(run, f"val/{name}") for run in runs}, format_y)
            )
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
    jinja.filters |= {"percent": percent, "points": points, "p_value": p_value, "figure": figure, "heading": heading}
    return jinja.get_template(name).render(**context)


def percent(share: float, digits: int = 2) -> str:
    """Format 0.9734 as 97.34 %, and NaN as a dash."""
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def figure(value: float, sign: str = "") -> str:
    """Format a number with four digits, and NaN as a dash."""
    return "–" if np.isnan(value) else f"{value:{sign}.4g}".replace("-", "−")


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
