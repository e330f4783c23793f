"""The command `alerts`: shares of the classes of dated texts over time, and alerts where negative ones rise."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from project.alerts.detector import WARM_UP, SurgeDetector
from project.alerts.follow import GrowingTable
from project.alerts.monitor import Monitor
from project.alerts.results import ALERTS, FIGURE, SHARES, Results
from project.alerts.rows import AlertColumns, RowReader
from project.alerts.times import parse_every
from project.alerts.webhook import Webhook
from project.alerts.windows import Windows
from project.callbacks.signals import Signals
from project.datamodules.texts import TextDataModule
from project.errors import UserError
from project.output import did_you_mean, pluralize, printable
from project.runs.job import Evaluation

COLUMNS = AlertColumns()
NEGATIVE = ("negative", "neg", "消极", "负面", "负")
"""Names of classes and labels that are watched by default, in any case."""
NAMED = 20
"""Classes and topics that are listed."""
WAIT = 0.2
"""Seconds between two looks at a growing file."""


def alerts(
    trained: Evaluation,
    columns: AlertColumns = COLUMNS,
    every: str = "1h",
    negative: str | None = None,
    false_alarms: float = 1.0,
    follow: bool = False,
    webhook: str | None = None,
) -> None:
    """Raise an alert where the share of negative texts in a table rises; the exit code is then 1.

    Texts are predicted and counted in windows of time. The share of each topic is compared to its past by a sequential
    test. Writes shares.csv, alerts.csv and alerts.png into a new run.

    Shin, Ramdas and Rinaldo, E-detectors: A Nonparametric Framework for Sequential Change Detection, 2023.

    Args:
        trained: The model and the datamodule, whose table is read.
        columns: Names of the columns of time and topic.
        every: Length of a window: a number of seconds (s), minutes (m), hours (h), days (d) or weeks (w).
        negative: Class or label whose share is watched; by default the one named negative or neg.
        false_alarms: Expected number of false alerts per 1,000 windows, over all topics together, that is not exceeded;
            above 0 and below 1,000.
        follow: Wait for rows that are appended to the table, until SIGINT or SIGTERM. A window is tested when a text of
            a later one arrives.
        webhook: URL to which each alert is posted as JSON; when following, only those of rows appended since the start.

    Raises:
        UserError: An option is invalid, or the table cannot be read; see also `Trained.load_model`.
        SystemExit: Code 1, there was an alert.
    """
    data, names = trained.data, trained.module.data_description.target.names
    length = parse_every(every)
    if not 0 < false_alarms < 1000:
        raise UserError(f"--false_alarms must be above 0 and below 1,000, got {false_alarms:g}")
    watched, hook = find_negative(names, negative), None if webhook is None else Webhook(webhook)
    if not isinstance(data, TextDataModule) or data.origin.table is None:
        raise UserError("alerts reads a table of dated texts: give --data.table FILE")
    table = Path(data.origin.table)
    source = GrowingTable(table, RowReader(data.origin.columns.text, columns)) if follow else None
    rows = None if source else RowReader(data.origin.columns.text, columns).load(table)
    trained.load_model()
    results = Results(Path(trained.trainer.log_dir or "."), names, watched, hook)
    windows, detector = Windows(length, len(names)), SurgeDetector(false_alarms / 1000)
    monitor = Monitor(trained, windows, detector, results)
    print(f"\n{table}: share of {printable(names[watched])} in windows of {every}", flush=True)
    if rows:
        warn(rows.notes)
        monitor.add(rows, deliver=True)
        monitor.finish(deliver=True)
    elif source:
        follow_table(source, monitor, trained)
    results.close()
    print(summarize(results, windows, detector))
    if not detector.tested and not follow:
        raise UserError(
            f"no topic has more than the {WARM_UP} windows with texts from which its baseline is learned, so nothing"
            f" was tested: give a table over a longer time, or shorter windows than --every {every}"
        )
    if results.alerts:
        raise SystemExit(1)


def find_negative(names: Sequence[str], given: str | None) -> int:
    """Return the number of the watched class or label.

    Args:
        names: All of them.
        given: Its name, or None to look for one of `NEGATIVE`.
    """
    if given is None:
        found = [number for number, name in enumerate(names) if name.strip().lower() in NEGATIVE]
        if len(found) != 1:
            which = "several classes are" if found else "no class is"
            raise UserError(f"{which} named negative: choose one with --negative NAME from {_listed(names)}")
        return found[0]
    if given not in names:
        similar = did_you_mean(given.lower(), {name.lower(): name for name in names})
        raise UserError(f"--negative: no class named '{given}'{similar or f': choose from {_listed(names)}'}")
    return list(names).index(given)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(map(printable, names[:NAMED])) + (f" and {more:,} more" if more > 0 else "")


def follow_table(source: GrowingTable, monitor: Monitor, trained: Evaluation) -> None:
    """Add the rows of a growing table until SIGINT or SIGTERM; those that are there at the start are not delivered."""
    signals, first = Signals(), True
    signals.install(trained.trainer)
    try:
        while not signals.received:
            rows = source.read()
            warn(source.notes)
            source.notes.clear()
            if rows is not None:
                monitor.add(rows, not first, lambda: signals.received)
            if first:
                print(f"{pluralize(monitor.texts, 'text')} read; waiting for more", flush=True)
            first = False
            if rows is None:
                time.sleep(WAIT)
        monitor.finish(deliver=True)
    finally:
        signals.restore()


def warn(notes: Sequence[str]) -> None:
    """Print sentences about what was skipped, guessed or changed."""
    for note in notes:
        print(f"warning: {note}", file=sys.stderr, flush=True)


def summarize(results: Results, windows: Windows, detector: SurgeDetector) -> str:
    """Return a table of topics, and the number of alerts, in several lines."""
    name = printable(results.names[results.negative])
    lines = ["", f"{'topic':<24}{'windows':>9}{'texts':>10}{name[:10]:>11}{'alerts':>8}"]
    for topic, shares in list(results.shares.items())[:NAMED]:
        total = np.sum(shares.counts, axis=0)
        alerts = sum(alert.topic == topic for alert in results.alerts)
        share = total[1 + results.negative] / total[0]
        lines.append(f"{printable(topic)[:23]:<24}{len(shares.counts):>9,}{total[0]:>10,}{share:>11.1%}{alerts:>8,}")
    more, untested = len(results.shares) - NAMED, len(results.shares) - detector.tested
    lines += [f"and {pluralize(more, 'more topic')}"] if more > 0 else []
    if windows.late:
        lines.append(f"{pluralize(windows.late, 'text')} came after a text of a later window: not counted")
    if untested:
        lines.append(
            f"not tested: {pluralize(untested, 'topic')} with at most {WARM_UP} windows, which only set the baseline"
        )
    rate = f"at most {detector.rate * 1000:g} false in 1,000 windows expected"
    lines.append(f"{pluralize(len(results.alerts), 'alert')} in {pluralize(detector.tested, 'tested topic')}, {rate}")
    files = [SHARES, ALERTS, *([FIGURE] if results.shares else [])]
    return "\n".join([*lines, ", ".join(str(results.folder / file) for file in files)])
