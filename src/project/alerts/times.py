"""Times in a column of a table, and lengths of windows."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import numpy as np
from numpy.typing import NDArray

from project.errors import UserError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
"""Seconds of the units of `--every`."""
MONDAY = 4 * 86400.0
"""A Monday, in seconds since 1970."""
EPOCHS = {10: 1, 13: 1e3, 16: 1e6, 19: 1e9}
"""Units per second of a time since 1970, by the number of its digits."""
PATTERN = re.compile(
    r"(?:(?P<year>\d{4})[-/.年] ?(?P<month>\d{1,2})[-/.月] ?(?P<day>\d{1,2})日?"
    r"|(?P<first>\d{1,2})(?P<mark>[-/.])(?P<second>\d{1,2})(?P=mark)(?P<last>\d{4}))"
    r"(?:[T ](?P<hour>\d{1,2})(?P<rest>:\d\d(?::\d\d(?:[.,]\d+)?)?)(?: ?(?P<half>[ap])m)?)?"
    r" ?(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
"""Numeric dates beyond ISO 8601, with an optional time of day and time zone."""


def parse_every(text: str) -> int:
    """Return the seconds of a length such as 15m, 1h or 1d.

    Raises:
        UserError: It is not a whole number above 0 with a unit.
    """
    match = re.fullmatch(r"([1-9]\d*) ?([smhdw])", text.strip())
    if not match:
        raise UserError(f"--every must be a number with one of the units {', '.join(UNITS)}, e.g. 1h, got '{text}'")
    return int(match[1]) * UNITS[match[2]]


def format_time(seconds: float) -> str:
    """Return a time in UTC, e.g. 2026-11-05T10:00Z, with seconds if it has any."""
    spec = "seconds" if seconds % 60 else "minutes"
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec=spec) + "Z"


class TimeReader:
    """Reads the times of a column: ISO 8601, seconds since 1970, RFC 2822 as in e-mail and RSS, and common formats.

    Times without a time zone are taken as UTC. Whether the day or the month comes first in dates such as 13/01/2026 is
    decided by the first cells that `read` gets with a number above 12, and kept.

    Attributes:
        notes: Sentences about what was assumed.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._zones: set[bool] = set()
        self._day_first: bool | None = None

    def read(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """Return seconds since 1970, float64 (N,), NaN if a cell cannot be read.

        Raises:
            UserError: It cannot be decided whether the day or the month comes first.
        """
        if self._day_first is None:
            self._day_first = _day_comes_first(cells)
        seconds = np.array([self._parse(" ".join(cell.split())) for cell in cells], np.float64)
        if False in self._zones:
            which = "some times" if True in self._zones else "times"
            self.notes = [f"{which} have no time zone, they are taken as UTC"]
        return seconds

    def _parse(self, cell: str) -> float:
        if match := re.fullmatch(r"(\d+)(\.\d*)?", cell):
            if len(match[1]) in EPOCHS:
                return float(cell) / EPOCHS[len(match[1])]
            if len(match[1]) == 14 and not match[2]:
                cell = f"{cell[:8]}T{cell[8:]}"
        for parse in (datetime.fromisoformat, self._numeric, _named):
            try:
                time = parse(cell)
                zoned = time.tzinfo is not None
                seconds = (time if zoned else time.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                continue
            self._zones.add(zoned)
            return seconds
        return float("nan")

    def _numeric(self, cell: str) -> datetime:
        match = PATTERN.fullmatch(cell)
        if not match:
            raise ValueError(cell)
        year, day, month = (
            match["year"] or match["last"],
            match["day"] or match["first"],
            match["month"] or match["second"],
        )
        if match["mark"] in ("/", "-") and not self._day_first:
            day, month = month, day
        hour = int(match["hour"] or 0)
        if match["half"]:
            hour = hour % 12 + 12 * (match["half"] in "pP")
        zone = (match["zone"] or "").upper().replace("UTC", "Z").replace("GMT", "Z")
        return datetime.fromisoformat(f"{year}-{int(month):02}-{int(day):02}T{hour:02}{match['rest'] or ':00'}{zone}")


def _named(cell: str) -> datetime:
    """Return a time with the English name of a month, as in e-mail and RSS; its parser ignores AM and PM."""
    if re.search(r"[ap]m\b", cell, re.IGNORECASE):
        raise ValueError(cell)
    return parsedate_to_datetime(cell if ":" in cell else f"{cell} 00:00")


def _day_comes_first(cells: Sequence[str]) -> bool | None:
    """Return True if dates are written 31/01/2026, False if 01/31/2026, None if there are no such dates."""
    found = [match for cell in cells if (match := PATTERN.match(cell.strip())) and match["mark"] in ("/", "-")]
    if not found:
        return None
    day_first, month_first = (next((m[0] for m in found if int(m[part]) > 12), None) for part in ("first", "second"))
    if (day_first is None) == (month_first is None):
        example = f"{day_first} and {month_first} disagree" if day_first else f"{found[0][0]} can be read both ways"
        raise UserError(f"times must say whether the day or the month comes first, {example}: write 2026-01-31")
    return day_first is not None
