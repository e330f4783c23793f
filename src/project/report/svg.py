"""Parts of charts as inline SVG, styled by the style sheet of the page."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 220, 48, 10, 12, 38
Scale = Callable[[float], float]


class Curve(NamedTuple):
    """A line of a chart: its name, its CSS class and its points."""

    name: str
    style: str
    points: list[tuple[float, float]]


class Axis(NamedTuple):
    """An axis of a chart: its range, the format of its ticks, their number, which is approximate, and its label."""

    low: float
    high: float
    text: Callable[[float], str]
    number: int
    label: str


def axes(x: Axis, y: Axis, height: float = HEIGHT) -> tuple[Scale, Scale, list[str]]:
    """Return the scales of x and y, which is extended to its outer ticks, and grid, ticks and labels as SVG."""
    x_ticks, y_ticks = ticks(x.low, x.high, x.number), ticks(y.low, y.high, y.number)
    left = LEFT if not y.label else 34 + 7 * max(len(y.text(tick)) for tick in y_ticks)
    x_at = scale(x.low, x.high, left, WIDTH - RIGHT)
    y_at = scale(min(y_ticks[0], y.low), max(y_ticks[-1], y.high), height - BOTTOM, TOP)
    parts = []
    for tick in y_ticks:
        parts.append(tag("line", "grid", x1=left, x2=WIDTH - RIGHT, y1=y_at(tick), y2=y_at(tick)))
        parts.append(tag("text", "end", y.text(tick), x=left - 7, y=y_at(tick) + 4))
    shown = [tick for tick in x_ticks if x.low <= tick <= x.high]
    parts += [tag("text", "tick", x.text(tick), x=x_at(tick), y=height - 21) for tick in shown]
    parts.append(tag("text", "axis", x.label, x=(left + WIDTH - RIGHT) / 2, y=height - 4))
    if y.label:
        parts.append(rotated("axis", y.label, 12, (TOP + height - BOTTOM) / 2))
    return x_at, y_at, parts


def polyline(curve: Curve, x_at: Scale, y_at: Scale) -> str:
    """Return the line of a curve, a dot if it has one point."""
    scaled = [(x_at(x), y_at(y)) for x, y in curve.points if math.isfinite(y)]
    line = " ".join(point for point, _ in groupby(f"{x:.1f},{y:.1f}" for x, y in scaled))
    drawn = f'<polyline class="curve {curve.style}" points="{line}"><title>{escape(curve.name)}</title></polyline>'
    return drawn + (
        tag("circle", f"dot {curve.style}", cx=scaled[0][0], cy=scaled[0][1], r=3) if len(scaled) == 1 else ""
    )


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    """Return a chart of the parts with a label for screen readers."""
    head = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" style="--width:{width:g}"'
    return Markup(f"<svg {head}>{''.join(parts)}</svg>")


def tag(name: str, style: str, text: str = "", **coordinates: float) -> str:
    """Return an SVG element of a CSS class, with its text."""
    attributes = "".join(f' {key.replace("_", "-")}="{value:.5g}"' for key, value in coordinates.items())
    return f'<{name} class="{style}"{attributes}>{escape(text)}</{name}>'


def rotated(style: str, text: str, x: float, y: float) -> str:
    """Return a text that runs upwards."""
    return f'<text class="{style}" transform="translate({x:g} {y:g}) rotate(-90)">{escape(text)}</text>'


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Return the linear function from [low, high] to [start, end]."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers that cover a range."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    return [round(i * step, 12) for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
