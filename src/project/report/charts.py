"""Charts as inline SVG, styled by the style sheet of the page, and confusion matrices as images."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from project.runs.predictions import Bin

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 220, 48, 10, 12, 38


class Curve(NamedTuple):
    """A line of a chart: its name, its CSS class and its points."""

    name: str
    style: str
    points: list[tuple[float, float]]


def line_chart(
    curves: Sequence[Curve], title: str, format_y: Callable[[float], str], mark: float | None = None
) -> Markup:
    """Return a chart of curves over the epochs, with a vertical line at epoch `mark`."""
    xs = [x for curve in curves for x, _ in curve.points] + ([] if mark is None else [mark])
    ys = [y for curve in curves for _, y in curve.points if math.isfinite(y)]
    if not ys:
        return Markup("")
    x_ticks, y_ticks = _ticks(min(xs), max(xs), 6), _ticks(min(ys), max(ys), 5)
    x_at = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_at = _scale(min(y_ticks[0], *ys), max(y_ticks[-1], *ys), HEIGHT - BOTTOM, TOP)
    parts = []
    for y in y_ticks:
        parts.append(_tag("line", "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y_at(y), y2=y_at(y)))
        parts.append(_tag("text", "end", format_y(y), x=LEFT - 7, y=y_at(y) + 4))
    parts += [_tag("text", "tick", f"{x:g}", x=x_at(x), y=HEIGHT - 21) for x in x_ticks if min(xs) <= x <= max(xs)]
    parts.append(_tag("text", "axis", "epoch", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4))
    if mark is not None:
        parts.append(_tag("line", "mark", x1=x_at(mark), x2=x_at(mark), y1=TOP, y2=HEIGHT - BOTTOM))
    for name, style, points in curves:
        scaled = [(x_at(x), y_at(y)) for x, y in points if math.isfinite(y)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in scaled)
        parts.append(f'<polyline class="curve {style}" points="{line}"><title>{escape(name)}</title></polyline>')
        if len(scaled) == 1:
            parts.append(_tag("circle", f"dot {style}", cx=scaled[0][0], cy=scaled[0][1], r=3))
    ends = "; ".join(f"{name} from {format_y(points[0][1])} to {format_y(points[-1][1])}" for name, _, points in curves)
    return _svg(WIDTH, HEIGHT, f"{title}: {ends}", parts)


def reliability_diagram(bins: Sequence[Bin], width: float, kind: str) -> Markup:
    """Return a reliability diagram with a histogram of confidence below; bins have a width in [0, 1]."""
    side, strip, gap, left = 300, 46, 30, LEFT + 18
    at, up = _scale(0, 1, left, left + side), _scale(0, 1, TOP + side, TOP)
    base, max_images = TOP + side + gap + strip, max(b.images for b in bins)
    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(_tag("line", "grid", x1=left, x2=left + side, y1=up(tick), y2=up(tick)))
        parts.append(_tag("text", "end", f"{tick:.0%}", x=left - 7, y=up(tick) + 4))
        parts.append(_tag("text", "tick", f"{tick:.0%}", x=at(tick), y=TOP + side + 17))
    for b in bins:
        x, wide, tall = at(b.low) + 1, side * width - 2, max(1.0, strip * b.images / max_images)
        label = f"{b.images:,} {kind}s: confidence {b.confidence:.1%}, accuracy {b.accuracy:.1%}"
        bar = _tag("rect", "bar", x=x, y=up(b.accuracy), width=wide, height=side * b.accuracy)
        count = _tag("rect", "count", x=x, y=base - tall, width=wide, height=tall)
        parts.append(f"<g><title>{label}</title>{bar}{count}</g>")
    parts.append(_tag("line", "ideal", x1=left, y1=up(0), x2=left + side, y2=up(1)))
    parts.append(_tag("text", "axis", "confidence", x=left + side / 2, y=base + 16))
    parts.append(_rotated("axis", "accuracy", 12, TOP + side / 2))
    parts.append(_rotated("axis", f"{kind}s", 12, base - strip / 2))
    summary = "; ".join(f"accuracy {b.accuracy:.0%} at confidence {b.confidence:.0%}" for b in bins)
    return _svg(left + side + RIGHT + 6, base + 24, f"Reliability diagram: {summary}", parts)


def confusion_chart(confusion: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """Return a chart of a confusion matrix, (classes, classes) with labels in rows, with its counts."""
    classes = len(names)
    cell = 30 if classes > 12 else max(38, min(72, 240 // classes))
    shown = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    margin, side = 30 + 7 * max(map(len, shown)), cell * classes
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    parts = [_tag("rect", "plot", x=margin, y=4, width=side, height=side)]
    for row, column in zip(*np.nonzero(confusion), strict=True):
        x, y, images, rate = margin + cell * column, 4 + cell * row, confusion[row, column], share[row, column]
        style = "value on-dark" if rate > 0.69 else "value"  # contrast with white then exceeds that with black
        count = f"{images:,}" if images < 100_000 else f"{rate:.0%}"
        label = f"{names[row]} predicted as {names[column]}: {images:,}, {rate:.1%}"
        square = _tag("rect", "cell", x=x, y=y, width=cell, height=cell, fill_opacity=rate**0.6)
        number = _tag("text", style, count, x=x + cell / 2, y=y + cell / 2 + 4)
        parts.append(f"<g><title>{escape(label)}</title>{square}{number}</g>")
    for i, name in enumerate(shown):
        middle = cell * (i + 0.5) + 4
        parts.append(_tag("text", "end", name, x=margin - 8, y=middle + 4))
        parts.append(_rotated("end", name, margin + middle, side + 12))
    parts.append(_rotated("axis", "true", 12, 4 + side / 2))
    height = side + margin + 12
    parts.append(_tag("text", "axis", "predicted", x=margin + side / 2, y=height - 4))
    label = f"Confusion matrix of {classes} classes; the table lists the most confused pairs"
    return _svg(margin + side + 6, height, label, parts)


def confusion_image(confusion: NDArray[np.int64]) -> str:
    """Return a row-normalized confusion matrix of many classes as a PNG of at most 240 x 240 pixels, as a data URI."""
    from PIL import Image

    classes = len(confusion)
    cuts = np.unique(np.linspace(0, classes, min(classes, 240), endpoint=False).astype(int))
    sums = np.add.reduceat(np.add.reduceat(confusion, cuts, 0), cuts, 1)
    # The square root makes small values visible.
    share = np.sqrt(sums / np.maximum(sums.sum(1, keepdims=True), 1))[..., None]
    color = 255 + share * (np.array([31, 79, 191]) - 255)  # from white to the accent color of the page
    file = io.BytesIO()
    Image.fromarray(color.round().astype(np.uint8)).quantize(32).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    head = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" style="--width:{width:g}"'
    return Markup(f"<svg {head}>{''.join(parts)}</svg>")


def _tag(name: str, style: str, text: str = "", **coordinates: float) -> str:
    attributes = "".join(f' {key.replace("_", "-")}="{value:.5g}"' for key, value in coordinates.items())
    return f'<{name} class="{style}"{attributes}>{escape(text)}</{name}>'


def _rotated(style: str, text: str, x: float, y: float) -> str:
    return f'<text class="{style}" transform="translate({x:g} {y:g}) rotate(-90)">{escape(text)}</text>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers that cover a range."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    return [round(i * step, 12) for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
