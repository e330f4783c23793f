"""Results of a test for the report: tables, charts and captions of classes, labels and values."""

from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from project.report.charts import confusion_chart, confusion_image, reliability_diagram
from project.report.curves import SHOWN, ranking_charts, residual_chart, scatter_chart
from project.runs.label_predictions import LabelPredictions
from project.runs.predictions import Predictions
from project.runs.read import Run
from project.runs.statistics import BINS
from project.runs.value_predictions import ValuePredictions


def results(run: Run) -> dict[str, Any]:
    """Return what the template of this kind of target shows; empty without predictions."""
    tested, kind = run.predictions, run.facts.get("kind", "image")
    if isinstance(tested, Predictions):
        return _classes(tested, run.target.get("train_counts"), kind)
    if isinstance(tested, LabelPredictions):
        return _labels(tested, run.target)
    return _values(tested) if isinstance(tested, ValuePredictions) else {}


def _classes(tested: Predictions, train_counts: list[int] | None, kind: str) -> dict[str, Any]:
    chart = confusion_chart(tested.confusion, tested.names) if len(tested.names) <= 30 else None  # legible
    found: dict[str, Any] = {
        "confusion_chart": chart,
        "confusion_image": None if chart else confusion_image(tested.confusion),
        "pairs": tested.pairs[:12],
        "classes": _class_rows(tested, train_counts),
        "means": {name: np.nanmean(tested.per_class[name]) for name in ("precision", "recall", "f1")},
        "reliability": reliability_diagram(tested.bins, 1 / BINS, f"{kind}s"),
    }
    if tested.probabilities is not None:
        truth = np.eye(len(tested.names))[tested.label]
        found["curves"], found["curves_shown"] = ranking_charts(tested.names, tested.probabilities, truth)
    return found


def _class_rows(tested: Predictions, train_counts: list[int] | None) -> list[dict[str, Any]]:
    """Return the rows of the per-class table, sorted by F1, lowest first."""
    # Reversed, so that the most frequent confusion of a class is kept.
    confused = {pair.label: f"{pair.predicted} ({pair.images:,})" for pair in reversed(tested.pairs)}
    rows = []
    for i, name in enumerate(tested.names):
        row = {"name": name, "train": train_counts[i] if train_counts else None}
        row["confused_with"] = confused.get(name, "")
        rows.append(row | {key: float(values[i]) for key, values in tested.per_class.items()})
    return sorted(rows, key=lambda row: (np.isnan(row["f1"]), row["f1"]))


def _labels(tested: LabelPredictions, target: dict[str, Any]) -> dict[str, Any]:
    labels = len(tested.names)
    columns = tested.per_label | {"threshold": np.array(target.get("thresholds") or [0.5] * labels)}
    if "train_counts" in target:
        columns["train"] = np.array(target["train_counts"])
    rows = [{"name": name} | {k: float(v[i]) for k, v in columns.items()} for i, name in enumerate(tested.names)]
    curves, shown = ranking_charts(tested.names, tested.scores, tested.truth)
    means = {
        name: _mean(tested.per_label[name]) for name in ("precision", "recall", "f1", "average_precision", "auroc")
    }
    axes = "predicted probability", "share with the label"
    return {
        "labels": sorted(rows, key=lambda row: (np.isnan(row["f1"]), row["f1"])),
        "means": means,
        "unknown": int((~tested.known).sum()),
        "curves": curves,
        "curves_shown": shown,
        "reliability": reliability_diagram(tested.bins, 1 / BINS, "labels", axes) if tested.bins else None,
    }


def _values(tested: ValuePredictions) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    charts: list[tuple[str, Markup, Markup]] = []
    for i, name in enumerate(tested.names):
        rows.append({"name": name} | {key: float(values[i]) for key, values in tested.per_value.items()})
        known = ~np.isnan(tested.truth[:, i])
        truth, predicted = tested.truth[known, i], tested.predicted[known, i]
        if len(charts) < SHOWN and known.any():
            charts.append((name, scatter_chart(truth, predicted, name), residual_chart(predicted - truth, name)))
    return {"values": rows, "value_charts": charts, "unknown": int(np.isnan(tested.truth).sum())}


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")


def captions(run: Run) -> Callable[[int], dict[str, Any]]:
    """Return a function of a row of the table of predictions, which returns its prediction and truth in words."""
    tested = run.predictions
    if isinstance(tested, Predictions):
        names, classes = tested.names, tested
        return lambda row: {
            "predicted": names[classes.predicted[row]],
            "label": names[classes.label[row]],
            "probability": classes.probability[row],
            "correct": classes.correct[row],
        }
    if isinstance(tested, LabelPredictions):
        labels = tested

        def words(mask: NDArray[np.bool_]) -> str:
            return ", ".join(name for name, chosen in zip(labels.names, mask, strict=True) if chosen) or "no label"

        return lambda row: {
            "predicted": words(labels.predicted[row]),
            "label": words(labels.truth[row] == 1),
            "unknown": words(~labels.known[row]) if not labels.known[row].all() else "",
            "correct": labels.exact[row],
        }
    assert isinstance(tested, ValuePredictions)
    values = tested

    def listed(numbers: NDArray[np.float64]) -> str:
        texts = ["unknown" if np.isnan(x) else f"{x:.4g}" for x in numbers.tolist()]
        if len(texts) == 1:
            return texts[0]
        return ", ".join(f"{name} {text}" for name, text in zip(values.names, texts, strict=True))

    return lambda row: {"predicted": listed(values.predicted[row]), "label": listed(values.truth[row])}
