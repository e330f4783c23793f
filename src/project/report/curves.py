"""ROC and precision-recall curves, scatter plots and histograms of residuals as inline SVG."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from project.report.svg import BOTTOM, TOP, WIDTH, Axis, Curve, axes, polyline, svg, tag, ticks

SHOWN = 10
"""Curves of single classes or labels in a chart, and values with charts."""
POINTS = 1000
"""Maximum points of a scatter plot."""
TALL = 320
GRID = np.linspace(0, 1, 201)
CHARTS = (("ROC", "false positive rate", "true positive rate"), ("Precision-recall", "recall", "precision"))
"""Title, x and y of the charts."""
Floats = NDArray[np.float64]
Line = list[tuple[float, float]]


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
    both = (truth == 0).any(0) & (truth == 1).any(0)
    ranked = {column: _rank(scores[:, column], truth[:, column]) for column in np.flatnonzero(both).tolist()}
    if not ranked:
        return [], 0
    shown = sorted(sorted(ranked, key=lambda column: ranked[column].areas[1])[:SHOWN])
    micro, average, charts = _rank(scores.ravel(), truth.ravel()), (_mean_roc, _mean_precision), []
    for i, (title, x, y) in enumerate(CHARTS):
        curves = [
            Curve(_title(names[column], ranked[column].areas[i]), f"c{number}", ranked[column].curves[i])
            for number, column in enumerate(shown)
        ]
        if len(ranked) > 1:
            area = float(np.mean([each.areas[i] for each in ranked.values()]))
            mean = average[i]([each.curves[i] for each in ranked.values()])
            curves.append(Curve(_title("macro average", area), "macro", mean))
            curves.append(Curve(_title("micro average", micro.areas[i]), "micro", micro.curves[i]))
        rate = "{:.0%}".format
        x_at, y_at, parts = axes(Axis(0, 1, rate, 5, x), Axis(0, 1, rate, 5, y), TALL)
        if title == "ROC":
            parts.append(tag("line", "ideal", x1=x_at(0), y1=y_at(0), x2=x_at(1), y2=y_at(1)))
        parts += [polyline(curve, x_at, y_at) for curve in curves]
        label = f"{title} curves: {'; '.join(curve.name for curve in curves)}"
        charts.append((title, svg(WIDTH, TALL, label, parts), curves))
    return charts, len(shown)


def _title(name: str, value: float) -> str:
    return f"{name}: {100 * value:.1f}\u00a0%"


class Ranked(NamedTuple):
    """The ROC and the precision-recall curve of a class or label, by ascending x, and the areas under them."""

    curves: tuple[Line, Line]
    areas: tuple[float, float]


def _rank(score: Floats, truth: Floats) -> Ranked:
    """Return the curves of scores (N,) and truth, 0, 1 or NaN (N,), as scikit-learn defines them, from one sort."""
    known = ~np.isnan(truth)
    order = np.argsort(-score[known], kind="stable")
    score, truth = score[known][order], truth[known][order]
    ends = np.flatnonzero(np.append(np.diff(score) != 0, True))  # the last of equal scores
    true, count = np.cumsum(truth)[ends], ends + 1.0
    recall, precision = np.append(0, true / true[-1]), true / count
    false_rate = np.append(0, (count - true) / (count[-1] - true[-1]))
    # Precision-recall is a step function: a precision holds from the recall before to its own.
    steps = np.stack([recall[:-1], recall[1:]], 1).ravel(), np.repeat(precision, 2)
    area = float((np.diff(false_rate) * (recall[1:] + recall[:-1])).sum() / 2)
    average_precision = float((np.diff(recall) * precision).sum())
    return Ranked((_thinned(false_rate, recall), _thinned(*steps)), (area, average_precision))


def _thinned(x: Floats, y: Floats) -> Line:
    """Return the points without those at the same place as the one before, in the resolution of the chart."""
    cells = (250 * np.stack([x, y], 1)).round()
    kept = np.r_[True, (np.diff(cells, axis=0) != 0).any(1)]
    kept[-1] = True
    return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))


def _mean_roc(curves: Sequence[Line]) -> Line:
    heights = [np.interp(GRID, *np.array(points).T) for points in curves]
    return [(0.0, 0.0), *zip(GRID.tolist(), np.mean(heights, 0).tolist(), strict=True)]


def _mean_precision(curves: Sequence[Line]) -> Line:
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
    x_at, y_at, parts = axes(Axis(low, high, _number, 5, "true"), Axis(low, high, _number, 5, "predicted"), TALL)
    rows = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), POINTS)).round().astype(int))
    dots = "".join(f"M{x_at(x):.1f} {y_at(y):.1f}h0" for x, y in zip(truth[rows], predicted[rows], strict=True))
    parts.append(f'<path class="points" d="{dots}"/>')
    parts.append(tag("line", "ideal", x1=x_at(low), y1=y_at(low), x2=x_at(high), y2=y_at(high)))
    return svg(WIDTH, TALL, f"{name}: predicted against true values of {len(rows):,} samples", parts)


def residual_chart(residuals: NDArray[Any], name: str) -> Markup:
    """Return a histogram of predicted minus true values, (N,), with a line at zero."""
    counts, edges = np.histogram(residuals, bins=min(40, max(8, round(len(residuals) ** 0.5))))
    low, high = min(0.0, float(edges[0])), max(0.0, float(edges[-1]))
    x = Axis(low, high, _number, 5, "predicted − true")
    x_at, y_at, parts = axes(x, Axis(0, float(counts.max()), "{:,.0f}".format, 5, "samples"), TALL)
    for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        left, top = x_at(start), y_at(count)
        bar = tag("rect", "bar", x=left, y=top, width=max(0.5, x_at(end) - left - 1), height=y_at(0) - top)
        parts.append(f"<g><title>{start:.4g} to {end:.4g}: {count:,}</title>{bar}</g>")
    parts.append(tag("line", "ideal", x1=x_at(0), x2=x_at(0), y1=TOP, y2=TALL - BOTTOM))
    return svg(WIDTH, TALL, f"{name}: residuals from {edges[0]:.4g} to {edges[-1]:.4g}", parts)


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")
