"""Files with shares and alerts, and the messages about them."""

import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.alerts.detector import Alert, Result
from project.alerts.figure import TopicShares, shares_figure
from project.alerts.times import format_time
from project.alerts.webhook import Webhook
from project.alerts.windows import Counts, Window
from project.files import atomic_write, write_table
from project.output import printable

ALERTS, SHARES, FIGURE = "alerts.csv", "shares.csv", "alerts.png"
ALERT_COLUMNS = ["topic", "window", "since", "until", "texts", "negative", "share", "expected"]
ALERT_COLUMNS += ["evidence", "threshold"]


@dataclass
class Results:
    """Writes shares.csv window by window, alerts.csv at every change, and alerts.png; delivers and prints alerts.

    Args:
        folder: Where to write.
        names: Names of the classes or labels.
        negative: Number of the one that is watched.
        webhook: Where to post alerts; None for nowhere.
    """

    folder: Path
    names: list[str]
    negative: int
    webhook: Webhook | None
    alerts: list[Alert] = field(default_factory=list)
    shares: dict[str, TopicShares] = field(default_factory=dict)
    _delivered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stream = (self.folder / SHARES).open("w", newline="", encoding="utf-8", errors="surrogateescape")
        self._writer = csv.writer(self._stream)
        self._writer.writerow(["window", "topic", "texts", "expected", "evidence", *self.names])
        self._write_alerts()

    def add(self, window: Window, results: dict[str, Result], deliver: bool) -> None:
        """Add a window of all topics; `deliver` its alerts to the webhook, or only write and print them."""
        for topic, result in results.items():
            counts = window.counts[topic]
            self._write_shares(window.start, topic, counts, result)
            if result.ended is not None:
                print(f"ended: {printable(topic)}, in the window of {format_time(window.start)}", flush=True)
                self._write_alerts()
            if result.alert is not None:
                self._add_alert(result.alert, deliver)
        self._stream.flush()

    def _write_shares(self, start: int, topic: str, counts: Counts, result: Result) -> None:
        self.shares.setdefault(topic, TopicShares()).append(start, counts, result.expected)
        evidence = "" if result.evidence is None else f"{result.evidence:.6g}"
        shares = [f"{share:.6f}" for share in (counts[1:] / counts[0]).tolist()]
        row = [format_time(start), topic, str(counts[0]), f"{result.expected:.6f}", evidence, *shares]
        self._writer.writerow(row)

    def _add_alert(self, alert: Alert, deliver: bool) -> None:
        self.alerts.append(alert)
        self._delivered.append("")
        self._write_alerts()  # before it is delivered, which may fail
        text = describe(alert, self.names[self.negative])
        print(f"ALERT {text}", flush=True)
        if self.webhook is not None and deliver:
            problem = self.webhook.post({"text": text, **_row(alert)})
            if problem:
                print(f"warning: the alert was not delivered to {self.webhook.host}: {problem}", file=sys.stderr)
            self._delivered[-1] = "no" if problem else "yes"
            self._write_alerts()

    def _write_alerts(self) -> None:
        pairs = zip(self.alerts, self._delivered, strict=True)
        rows = [_row(alert) | {"delivered": delivered} for alert, delivered in pairs]
        write_table(self.folder / ALERTS, rows, [*ALERT_COLUMNS, "delivered"])

    def draw(self) -> None:
        """Write the figure."""
        figure = shares_figure(self.shares, self.names, self.negative, self.alerts)
        with atomic_write(self.folder / FIGURE) as partial:
            figure.savefig(partial)

    def close(self) -> None:
        """Write the figure, and finish the files."""
        self._stream.close()
        if self.shares:
            self.draw()


def describe(alert: Alert, name: str) -> str:
    """Return an alert in one sentence; `name` is the watched class or label."""
    share = f"{alert.negative / alert.texts:.1%} {name} ({alert.negative:,} of {alert.texts:,} texts)"
    times = f"since {format_time(alert.since)}, in the window of {format_time(alert.window)}"
    return f"{printable(alert.topic)}: {share} {times}, where {alert.expected:.1%} is expected"


def _row(alert: Alert) -> dict[str, Any]:
    """Return the cells of an alert by column."""
    times = (alert.window, alert.since, alert.until)
    window, since, until = ("" if each is None else format_time(each) for each in times)
    share = alert.negative / alert.texts
    numbers = (alert.texts, alert.negative, share, alert.expected, alert.evidence, alert.threshold)
    return dict(zip(ALERT_COLUMNS, (alert.topic, window, since, until, *numbers), strict=True))
