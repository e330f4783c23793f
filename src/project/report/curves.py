"""ROC and precision-recall curves, scatter plots and histograms of residuals as inline SVG."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from project.report.svg import BOTTOM, TOP, WIDTH, Axis, Curve, axes, polyline, svg, tag, ticks
from project.runs.statistics import ranking

SHOWN = 10
"""Curves of single classes or labels in a chart, and values with charts."""
POINTS = 1000
"""Maximum points of a scatter plot."""
TALL = 320
GRID = np.linspace(0, 1, 201)
Floats = NDArray[np.float64]


def ranking_charts(
    names: Sequence[str], scores: Floats, truth: Floats
) -> tuple[list[tuple[str, Markup, list[Curve]]], int]:
    """Return the ROC and the precision-recall chart, each a title, SVG and curves, and the number of names shown.

    Curves of up to `SHOWN` names, those with the lowest average precision, and of the macro average (the mean of the
    curves of all names) and the micro average (of all scores together). Names with one outcome only have no curve.

    Args:
        names: Classes or labels.
        scores: Probabilities, float (N, names).
        truth: 0 or 1, NaN if unknown, float (N, names).
    """
    found = ranking(scores, truth)
    ranked = np.flatnonzero(~np.isnan(found["auroc"]))
    if not len(ranked):
        return [], 0
    shown = sorted(ranked[np.argsort(found["average_precision"][ranked], kind="stable")[:SHOWN]].tolist())
    drawn = {column: _curves(scores[:, column], truth[:, column]) for column in ranked.tolist()}
    pooled = scores.reshape(-1, 1), truth.reshape(-1, 1)
    micro, micro_curves = ranking(*pooled), _curves(pooled[0][:, 0], pooled[1][:, 0])
    charts = []
    for i, (key, title, x, y) in enumerate(
        (
            ("auroc", "ROC", "false positive rate", "true positive rate"),
            ("average_precision", "Precision-recall", "recall", "precision"),
        )
    ):
        curves = [
            Curve(_title(names[column], found[key][column]), f"c{number}", drawn[column][i])
            for number, column in enumerate(shown)
        ]
        if len(ranked) > 1:
            averaged = (_macro_roc, _macro_precision)[i]([drawn[column][i] for column in ranked.tolist()])
            curves.append(Curve(_title("macro average", float(found[key][ranked].mean())), "macro", averaged))
            curves.append(Curve(_title("micro average", micro[key][0]), "micro", micro_curves[i]))
        rate = "{:.0%}".format
        x_at, y_at, parts = axes(Axis(0, 1, rate, 5, x), Axis(0, 1, rate, 5, y), TALL)
        if key == "auroc":
            parts.append(tag("line", "ideal", x1=x_at(0), y1=y_at(0), x2=x_at(1), y2=y_at(1)))
        parts += [polyline(curve, x_at, y_at) for curve in curves]
        label = f"{title} curves: {'; '.join(curve.name for curve in curves)}"
        charts.append((title, svg(WIDTH, TALL, label, parts), curves))
    return charts, len(shown)


def _title(name: str, value: float) -> str:
    return f"{name} {100 * value:.1f}\u00a0%"


def _curves(score: Floats, truth: Floats) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Return the points of the ROC curve and of the precision-recall curve, a step function, by ascending x."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    known = ~np.isnan(truth)
    false_rate, true_rate, _ = roc_curve(truth[known], score[known])
    precision, recall, _ = precision_recall_curve(truth[known], score[known])
    ends, heights = np.stack([recall[:-1], recall[1:]], 1), np.stack([precision[:-1]] * 2, 1)
    return _thinned(false_rate, true_rate), _thinned(ends.ravel()[::-1], heights.ravel()[::-1])


def _thinned(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """Return the points without those that are at the same place as the one before, in the resolution of the chart."""
    cells = (250 * np.stack([x, y], 1)).round()
    kept = np.r_[True, (np.diff(cells, axis=0) != 0).any(1)]
    kept[-1] = True
    return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))


def _macro_roc(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    heights = [np.interp(GRID, *np.array(points).T) for points in curves]
    return [(0.0, 0.0), *zip(GRID.tolist(), np.mean(heights, 0).tolist(), strict=True)]


def _macro_precision(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    heights = []
    for points in curves:
        recall, precision = np.array(points).T
        heights.append(precision[np.searchsorted(recall, GRID).clip(max=len(recall) - 1)])
    return list(zip(GRID.tolist(), np.mean(heights, 0).tolist(), strict=True))


def scatter_chart(truth: Floats, predicted: Floats, name: str) -> Markup:
    """Return predicted against true values, each (N,), with the identity line; of many samples, `POINTS` evenly."""
    both = np.concatenate([truth, predicted])
    bounds = ticks(float(both.min()), float(both.max()), 5)
    low, high = bounds[0], bounds[-1]
    text = "{:.6g}".format
    x_at, y_at, parts = axes(Axis(low, high, text, 5, "true"), Axis(low, high, text, 5, "predicted"), TALL)
    rows = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), POINTS)).round().astype(int))
    dots = "".join(f"M{x_at(x):.1f} {y_at(y):.1f}h0" for x, y in zip(truth[rows], predicted[rows], strict=True))
    parts.append(f'<path class="points" d="{dots}"/>')
    parts.append(tag("line", "ideal", x1=x_at(low), y1=y_at(low), x2=x_at(high), y2=y_at(high)))
    return svg(WIDTH, TALL, f"{name}: predicted against true values of {len(rows):,} samples", parts)


def residual_chart(residuals: NDArray[Any], name: str) -> Markup:
    """Return a histogram of predicted minus true values, (N,), with a line at zero."""
    counts, edges = np.histogram(residuals, bins=min(40, max(8, round(len(residuals) ** 0.5))))
    low, high = min(0.0, float(edges[0])), max(0.0, float(edges[-1]))
    x = Axis(low, high, "{:.6g}".format, 5, "predicted − true")
    x_at, y_at, parts = axes(x, Axis(0, float(counts.max()), "{:,.0f}".format, 5, "samples"), TALL)
    for count, start, end in zip(counts.tolist(), edges.tolist(), edges[1:].tolist(), strict=True):
        left, top = x_at(start), y_at(count)
        bar = tag("rect", "bar", x=left, y=top, width=max(0.5, x_at(end) - left - 1), height=y_at(0) - top)
        parts.append(f"<g><title>{start:.4g} to {end:.4g}: {count:,}</title>{bar}</g>")
    parts.append(tag("line", "ideal", x1=x_at(0), x2=x_at(0), y1=TOP, y2=TALL - BOTTOM))
    return svg(WIDTH, TALL, f"{name}: residuals from {edges[0]:.4g} to {edges[-1]:.4g}", parts)
