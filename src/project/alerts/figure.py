"""Figure of the shares of classes over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from project.alerts.detector import Alert
from project.alerts.windows import Counts
from project.machine import font_families
from project.modules.tasks.figures import SHOWN, TEXT
from project.output import printable


@dataclass
class TopicShares:
    """Windows of a topic: their starts in seconds since 1970, counts (1 + outputs,), and the expected share."""

    starts: list[int] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)

    def append(self, start: int, counts: Counts, expected: float) -> None:
        """Append a window."""
        self.starts.append(start)
        self.counts.append(counts)
        self.expected.append(expected)


def shares_figure(
    topics: Mapping[str, TopicShares], names: Sequence[str], negative: int, alerts: Sequence[Alert]
) -> Any:
    """Return a matplotlib figure with a panel for each of up to `SHOWN` topics, those with alerts first.

    Args:
        topics: Windows of each topic.
        names: Names of the classes or labels, of which the `SHOWN` most frequent ones are drawn.
        negative: Number of the watched one, which is drawn in red with its expected share.
        alerts: Alerts, which are shaded.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    totals = {topic: np.sum(shares.counts, axis=0) for topic, shares in topics.items()}
    alerted = {alert.topic for alert in alerts}
    shown = sorted(topics, key=lambda topic: (topic not in alerted, -totals[topic][0]))[:SHOWN]
    frequent = np.argsort(-np.sum(list(totals.values()), axis=0)[1:], kind="stable")[:SHOWN].tolist()
    figure = Figure(figsize=(9, 0.6 + 2.4 * len(shown)), dpi=110, layout="constrained")
    panels = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for topic, axes in zip(shown, panels, strict=True):
        windows = topics[topic]
        times = [_utc(start) for start in windows.starts]
        shares = np.array(windows.counts)[:, 1:] / np.array(windows.counts)[:, :1]
        for number in frequent:
            if number != negative:
                axes.plot(times, shares[:, number], linewidth=0.8, alpha=0.7, label=printable(names[number]))
        axes.plot(times, shares[:, negative], color="tab:red", linewidth=1.4, label=printable(names[negative]))
        axes.plot(times, windows.expected, color="black", linewidth=1, linestyle="--", label="expected")
        for alert in alerts:
            if alert.topic == topic:
                end = windows.starts[-1] if alert.until is None else alert.until
                axes.axvspan(_utc(alert.since), _utc(end), color="tab:red", alpha=0.15, linewidth=0)
                axes.axvline(_utc(alert.window), color="tab:red", linewidth=1)
        axes.set(ylabel="share", ylim=(0, 1))
        axes.set_title(printable(topic), fontfamily=font_families(), fontsize=10, **TEXT)
    locator: Any = AutoDateLocator()  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    legend = figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    for text in legend.get_texts():
        text.set(fontfamily=font_families(), **TEXT)
    left_out = [(len(topics) - len(shown), "topics"), (len(names) - len({*frequent, negative}), "classes")]
    if note := ", ".join(f"{count:,} more {what} not drawn" for count, what in left_out if count):
        figure.supxlabel(note, fontsize=8)
    return figure


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
