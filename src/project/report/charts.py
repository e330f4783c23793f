"""Charts as inline SVG, styled by the style sheet of the page, and confusion matrices as images."""

import base64
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from project.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Curve,
    axes,
    polyline,
    rotated,
    scale,
    svg,
    tag,
)
from project.runs.predictions import Bin


def line_chart(
    curves: Sequence[Curve], title: str, format_y: Callable[[float], str], mark: float | None = None
) -> Markup:
    """Return a chart of curves over the epochs, with a vertical line at epoch `mark`."""
    xs = [x for curve in curves for x, _ in curve.points] + ([] if mark is None else [mark])
    ys = [y for curve in curves for _, y in curve.points if math.isfinite(y)]
    if not ys:
        return Markup("")
    x, y = Axis(min(xs), max(xs), "{:g}".format, 6, "epoch"), Axis(min(ys), max(ys), format_y, 5, "")
    x_at, y_at, parts = axes(x, y)
    if mark is not None:
        parts.append(tag("line", "mark", x1=x_at(mark), x2=x_at(mark), y1=TOP, y2=HEIGHT - BOTTOM))
    parts += [polyline(curve, x_at, y_at) for curve in curves]
    ends = "; ".join(f"{name} from {format_y(points[0][1])} to {format_y(points[-1][1])}" for name, _, points in curves)
    return svg(WIDTH, HEIGHT, f"{title}: {ends}", parts)


def reliability_diagram(
    bins: Sequence[Bin], width: float, counted: str, names: tuple[str, str] = ("confidence", "accuracy")
) -> Markup:
    """Return a reliability diagram with a histogram of confidence below.

    Args:
        bins: The bins.
        width: Width of a bin in [0, 1].
        counted: What the bins count, e.g. images.
        names: Names of confidence and accuracy.
    """
    confidence, accuracy = names
    side, strip, gap, left = 300, 46, 30, LEFT + 18
    at, up = scale(0, 1, left, left + side), scale(0, 1, TOP + side, TOP)
    base, max_images = TOP + side + gap + strip, max(b.images for b in bins)
    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(tag("line", "grid", x1=left, x2=left + side, y1=up(tick), y2=up(tick)))
        parts.append(tag("text", "end", f"{tick:.0%}", x=left - 7, y=up(tick) + 4))
        parts.append(tag("text", "tick", f"{tick:.0%}", x=at(tick), y=TOP + side + 17))
    for b in bins:
        x, wide, tall = at(b.low) + 1, side * width - 2, max(1.0, strip * b.images / max_images)
        label = f"{b.images:,} {counted}: {confidence} {b.confidence:.1%}, {accuracy} {b.accuracy:.1%}"
        bar = tag("rect", "bar", x=x, y=up(b.accuracy), width=wide, height=side * b.accuracy)
        count = tag("rect", "count", x=x, y=base - tall, width=wide, height=tall)
        parts.append(f"<g><title>{label}</title>{bar}{count}</g>")
    parts.append(tag("line", "ideal", x1=left, y1=up(0), x2=left + side, y2=up(1)))
    parts.append(tag("text", "axis", confidence, x=left + side / 2, y=base + 16))
    parts.append(rotated("axis", accuracy, 12, TOP + side / 2))
    parts.append(rotated("axis", counted, 12, base - strip / 2))
    summary = "; ".join(f"{accuracy} {b.accuracy:.0%} at {confidence} {b.confidence:.0%}" for b in bins)
    return svg(left + side + RIGHT + 6, base + 24, f"Reliability diagram: {summary}", parts)


def confusion_chart(confusion: NDArray[np.int64], names: Sequence[str]) -> Markup:
    """Return a chart of a confusion matrix, (classes, classes) with labels in rows, with its counts."""
    classes = len(names)
    cell = 30 if classes > 12 else max(38, min(72, 240 // classes))
    shown = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    margin, side = 30 + 7 * max(map(len, shown)), cell * classes
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    parts = [tag("rect", "plot", x=margin, y=4, width=side, height=side)]
    for row, column in zip(*np.nonzero(confusion), strict=True):
        x, y, images, rate = margin + cell * column, 4 + cell * row, confusion[row, column], share[row, column]
        style = "value on-dark" if rate > 0.69 else "value"  # contrast with white then exceeds that with black
        count = f"{images:,}" if images < 100_000 else f"{rate:.0%}"
        label = f"{names[row]} predicted as {names[column]}: {images:,}, {rate:.1%}"
        square = tag("rect", "cell", x=x, y=y, width=cell, height=cell, fill_opacity=rate**0.6)
        number = tag("text", style, count, x=x + cell / 2, y=y + cell / 2 + 4)
        parts.append(f"<g><title>{escape(label)}</title>{square}{number}</g>")
    for i, name in enumerate(shown):
        middle = cell * (i + 0.5) + 4
        parts.append(tag("text", "end", name, x=margin - 8, y=middle + 4))
        parts.append(rotated("end", name, margin + middle, side + 12))
    parts.append(rotated("axis", "true", 12, 4 + side / 2))
    height = side + margin + 12
    parts.append(tag("text", "axis", "predicted", x=margin + side / 2, y=height - 4))
    label = f"Confusion matrix of {classes} classes; the table lists the most confused pairs"
    return svg(margin + side + 6, height, label, parts)


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
