"""Drawings as inline SVG, coloured by the page's style sheet, and the picture of a large confusion matrix."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from project.report.figures import Bin

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 220, 48, 10, 12, 38
POINTS = 300
"""Points drawn of a curve."""
PICTURE = 240
"""Height and width of the picture of a large confusion matrix, in pixels."""


class Curve(NamedTuple):
    """One line of a chart: its name, the class that colours it, and its points."""

    name: str
    style: str
    points: list[tuple[float, float]]


def line_chart(
    curves: Sequence[Curve], title: str, x_title: str, form: Callable[[float], str], mark: float | None = None
) -> Markup:
    """Curves over one axis; `mark` is where a vertical line stands."""
    curves = [Curve(name, style, _thinned(points)) for name, style, points in curves if points]
    xs = [x for curve in curves for x, _ in curve.points] + ([] if mark is None else [mark])
    ys = [y for curve in curves for _, y in curve.points if math.isfinite(y)]
    if not ys:
        return Markup("")
    x_ticks, y_ticks = _ticks(min(xs), max(xs), 6), _ticks(min(ys), max(ys), 5)
    x_at = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_at = _scale(min(y_ticks[0], *ys), max(y_ticks[-1], *ys), HEIGHT - BOTTOM, TOP)
    parts = []
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_at(y):.1f}" y2="{y_at(y):.1f}"/>')
        parts.append(_label(LEFT - 7, y_at(y) + 4, form(y), "end"))
    parts += [_label(x_at(x), HEIGHT - BOTTOM + 17, f"{x:g}") for x in x_ticks if min(xs) <= x <= max(xs)]
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x_title))
    if mark is not None:
        parts.append(
            f'<line class="mark" x1="{x_at(mark):.1f}" x2="{x_at(mark):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
    for name, style, points in curves:
        places = [(x_at(x), y_at(y)) for x, y in points if math.isfinite(y)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve {style}" points="{line}"><title>{escape(name)}</title></polyline>')
        if len(places) == 1:
            parts.append(f'<circle class="dot {style}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"/>')
    ends = "; ".join(f"{name} from {form(points[0][1])} to {form(points[-1][1])}" for name, _, points in curves)
    return _svg(WIDTH, HEIGHT, f"{title}: {ends}", parts)


def reliability_diagram(bins: Sequence[Bin], width: float) -> Markup:
    """Accuracy against confidence, a bar a bin of a width in [0, 1], and beneath it how many images a bin has."""
    side, strip, gap, left = 300, 46, 30, LEFT + 18
    at = _scale(0, 1, left, left + side)
    up = _scale(0, 1, TOP + side, TOP)
    base = TOP + side + gap + strip
    most = max(b.images for b in bins)
    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(f'<line class="grid" x1="{left}" x2="{left + side}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts += [
            _label(left - 7, up(tick) + 4, f"{tick:.0%}", "end"),
            _label(at(tick), TOP + side + 17, f"{tick:.0%}"),
        ]
    for b in bins:
        x, wide, tall = at(b.low) + 1, side * width - 2, max(1.0, strip * b.images / most)
        words = f"{b.images:,} images: confidence {b.confidence:.1%}, accuracy {b.accuracy:.1%}"
        parts.append(
            f'<g><title>{words}</title><rect class="bar" x="{x:.1f}" y="{up(b.accuracy):.1f}" width="{wide:.1f}"'
            f' height="{side * b.accuracy:.1f}"/><rect class="count" x="{x:.1f}" y="{base - tall:.1f}"'
            f' width="{wide:.1f}" height="{tall:.1f}"/></g>'
        )
    parts.append(f'<line class="ideal" x1="{left}" y1="{up(0)}" x2="{left + side}" y2="{up(1)}"/>')
    parts.append(_label(left + side / 2, base + 16, "probability of the predicted class; below: images in each bin"))
    parts.append(_axis("share that is right", TOP + side / 2))
    words = "; ".join(f"at {b.confidence:.0%} confidence {b.accuracy:.0%} are right" for b in bins)
    return _svg(left + side + RIGHT + 6, base + 24, f"Reliability: {words}", parts)


def confusion_chart(confusion: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """A confusion matrix, (classes, classes) with labels in rows, with its counts."""
    classes = len(names)
    cell = 30 if classes > 12 else max(38, min(72, 240 // classes))
    shown = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    margin = 30 + 7 * max(map(len, shown))
    end = margin + cell * classes
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    parts = [f'<rect class="field" x="{margin}" y="4" width="{cell * classes}" height="{cell * classes}"/>']
    for row, column in zip(*np.nonzero(confusion), strict=True):
        x, y, part = margin + cell * column, 4 + cell * row, share[row, column]
        deep = " deep" if part > 0.69 else ""  # where white is as readable as black
        count = f"{confusion[row, column]:,}" if confusion[row, column] < 100_000 else f"{part:.0%}"
        parts.append(
            f'<rect class="cell" x="{x}" y="{y}" width="{cell}" height="{cell}" fill-opacity="{part**0.6:.2f}"><title>'
            f"{escape(names[row])} taken for {escape(names[column])}: {confusion[row, column]:,}, {part:.1%}"
            "</title></rect>"
        )
        parts.append(f'<text class="in{deep}" x="{x + cell / 2:g}" y="{y + cell / 2 + 4:g}">{count}</text>')
    for i, name in enumerate(shown):
        middle = cell * (i + 0.5)
        parts.append(_label(margin - 8, 4 + middle + 4, name, "end"))
        x = margin + middle + 4
        parts.append(
            f'<text text-anchor="end" transform="translate({x:g} {end - margin + 12}) rotate(-90)">'
            f"{escape(name)}</text>"
        )
    parts.append(_axis("true", 4 + cell * classes / 2))
    height = cell * classes + margin + 12
    parts.append(_label((margin + end) / 2, height - 4, "predicted"))
    return _svg(
        end + 6, height, f"Confusion matrix of {classes} classes; the most confused pairs stand beside it", parts
    )


def confusion_picture(confusion: NDArray[np.int64]) -> str:
    """A confusion matrix of many classes as a small PNG, several classes a pixel, as a data URI.

    A pixel is as dark as the share of its rows' images that its columns hold; a square root makes few visible.
    """
    from PIL import Image

    classes = len(confusion)
    cuts = np.unique(np.linspace(0, classes, min(classes, PICTURE), endpoint=False).astype(int))
    sums = np.add.reduceat(np.add.reduceat(confusion, cuts, 0), cuts, 1)
    share = np.sqrt(sums / np.maximum(sums.sum(1, keepdims=True), 1))[..., None]
    colour = 255 + share * (np.array([31, 79, 191]) - 255)  # white to the page's accent
    file = io.BytesIO()
    Image.fromarray(colour.round().astype(np.uint8)).quantize(32).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _svg(width: float, height: float, words: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(words)}" style="--wide:{width:g}">'
        f"{''.join(parts)}</svg>"
    )


def _label(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _axis(words: str, y: float) -> str:
    """The title of a vertical axis, turned."""
    return f'<text text-anchor="middle" transform="translate(12 {y:g}) rotate(-90)">{escape(words)}</text>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers that cover a range."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    return [round(i * step, 12) for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points, the first and the last among them."""
    if len(points) <= POINTS:
        return points
    return [points[i] for i in np.linspace(0, len(points) - 1, POINTS).round().astype(int)]
