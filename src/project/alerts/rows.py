"""Dated texts of a table."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from project.alerts.times import TimeReader
from project.errors import UserError
from project.output import pluralize
from project.tables import load_table
from project.texts import clean_text

NO_TOPIC = "(no topic)"
ALL = "all texts"
DAY = 86400.0


@dataclass(frozen=True)
class AlertColumns:
    """Names of the columns of time and topic.

    Args:
        time: Time of each text: ISO 8601, seconds since 1970, or a common format; UTC if it has no time zone.
        topic: Topic of each text, e.g. a company; each topic is tested on its own. By default, all texts are one topic.
    """

    time: str = "time"
    topic: str | None = None


class Rows(NamedTuple):
    """Texts with a time, in the order of time.

    Attributes:
        texts: The texts, N.
        times: In seconds since 1970, float64 (N,).
        topics: Topic of each text, N.
        notes: Sentences about what was skipped, guessed or changed.
    """

    texts: list[str]
    times: NDArray[np.float64]
    topics: list[str]
    notes: list[str]

    def part(self, start: int, stop: int) -> "Rows":
        """Return some of the rows, without notes."""
        return Rows(self.texts[start:stop], self.times[start:stop], self.topics[start:stop], [])


class RowReader:
    """Reads the texts, times and topics of tables with the same columns.

    Args:
        text: Column of the texts.
        columns: Columns of time and topic.
    """

    def __init__(self, text: str, columns: AlertColumns) -> None:
        self._text, self._columns, self._times = text, columns, TimeReader()

    def load(self, file: Path) -> Rows:
        """Read a table.

        Raises:
            UserError: The table cannot be read, lacks a column, or has no readable time.
        """
        text, columns = self._text, self._columns
        required = {text: "--data.columns.text", columns.time: "--columns.time"}
        if columns.topic is not None:
            required[columns.topic] = "--columns.topic"
        table = load_table(file, required)
        texts, times = [clean_text(cell) for cell in table.cells[text]], self._times.read(table.cells[columns.time])
        topics = (
            [ALL] * len(texts) if columns.topic is None else [each or NO_TOPIC for each in table.clean(columns.topic)]
        )
        with np.errstate(invalid="ignore"):
            future = times > time.time() + DAY  # of tomorrow, as it may lack its time zone
        unreadable, empty = np.isnan(times), np.array([not each for each in texts])
        notes, kept = list(table.notes), np.full(len(texts), True)
        for left_out, what in (
            (unreadable, "without a readable time"),
            (future, "later than tomorrow"),
            (empty, "without a text"),
        ):
            if len(rows := np.flatnonzero(left_out & kept)):
                example = f"{table.places[rows[0]]}: {table.cells[columns.time][rows[0]]!r}"
                notes.append(f"{file}: skipping {pluralize(len(rows), 'row')} {what}, e.g. {example}")
            kept &= ~left_out
        if unreadable.all():
            example = f"{table.places[0]}: {table.cells[columns.time][0]!r}"
            fix = "write times such as 2026-01-31T12:00:00+01:00, or seconds since 1970"
            raise UserError(f"{file}: column {columns.time} has no time that can be read, e.g. {example}: {fix}")
        rows = np.flatnonzero(kept)
        if earlier := int((times[rows] < np.maximum.accumulate(times[rows])).sum()):
            notes.append(f"{file}: {pluralize(earlier, 'row')} not in the order of time: sorted")
        notes += self._times.notes
        order = rows[np.argsort(times[rows], kind="stable")].tolist()
        return Rows([texts[row] for row in order], times[order], [topics[row] for row in order], notes)
