"""Reading of times, and windows."""

import numpy as np
import pytest

from project.alerts.times import TimeReader, format_time, parse_every
from project.alerts.windows import Windows
from project.errors import UserError

NOON = {
    "UTC": ["2026-01-05T12:00Z", "2026-01-05 12:00:00 UTC", "1767614400", "1767614400.0", "1767614400000"],
    "other zones": ["2026-01-05T20:00+08:00", "2026-01-05 07:00:00 -0500", "Mon, 05 Jan 2026 13:00:00 +0100"],
    "none": ["2026-01-05 12:00", "20260105120000", "05.01.2026 12:00", "2026/1/5 12:00:00 PM", "2026年1月5日 12:00"],
    "names": ["Jan 5, 2026 12:00", "5 Jan 2026 12:00:00"],
}


def test_times_of_common_formats() -> None:
    for kind, cells in NOON.items():
        reader = TimeReader()
        read = [format_time(seconds) for seconds in reader.read(cells).tolist()]
        assert read == ["2026-01-05T12:00Z"] * len(cells), kind
        assert bool(reader.notes) == (kind in ("none", "names")), kind
    reader = TimeReader()
    reader.read(NOON["UTC"] + NOON["none"])
    assert "some times have no time zone" in reader.notes[0]
    assert format_time(TimeReader().read(["5 Jan 2026"])[0]) == "2026-01-05T00:00Z"


def test_what_is_no_time_is_nan() -> None:
    cells = ["", "yesterday", "10", "2026", "2026-13-01", "2026-01-05T25:00", "05/01/26", "Jan 5, 2026 1:00 PM"]
    assert np.isnan(TimeReader().read(cells)).all()


def test_order_of_day_and_month() -> None:
    days, months = ["05/01/2026", "13/01/2026 10:00"], ["01/05/2026", "01/13/2026 10:00"]
    expected = ["2026-01-05T00:00Z", "2026-01-13T10:00Z"]
    reader = TimeReader()
    assert [format_time(each) for each in reader.read(days)] == expected
    assert format_time(reader.read(["05/01/2026"])[0]) == expected[0]  # the order is kept
    assert [format_time(each) for each in TimeReader().read(months)] == expected
    with pytest.raises(UserError, match="05/01/2026 can be read both ways"):
        TimeReader().read(["05/01/2026", "06/01/2026"])
    with pytest.raises(UserError, match="13/01/2026 and 01/13/2026 disagree"):
        TimeReader().read(["13/01/2026", "01/13/2026"])


def test_lengths_of_windows() -> None:
    assert [parse_every(text) for text in ("30s", "15m", "1h", "2 d", "1w")] == [30, 900, 3600, 172800, 604800]
    for text in ("1", "h", "0h", "1.5h", "1 month"):
        with pytest.raises(UserError, match=r"--every .* e\.g\. 1h"):
            parse_every(text)


def test_windows_are_complete_once_a_later_one_begins() -> None:
    windows = Windows(3600, 2)
    hour, classes = 3600.0, np.eye(2, dtype=bool)
    times = np.array([0.0, 10, hour - 1, hour, 20])
    (first,) = windows.add(times, ["a", "b", "a", "a", "a"], classes[[0, 1, 1, 0, 0]])
    assert first.start == 0
    assert {topic: counts.tolist() for topic, counts in first.counts.items()} == {"a": [3, 2, 1], "b": [1, 0, 1]}
    assert windows.add(np.array([50.0, hour + 5]), ["a", "a"], classes[[0, 1]]) == [] and windows.late == 1
    (second,) = windows.finish()
    assert second.start == hour and second.counts["a"].tolist() == [2, 1, 1]


def test_weeks_start_on_monday() -> None:
    windows = Windows(parse_every("1w"), 1)
    windows.add(TimeReader().read(["2026-01-07T12:00Z"]), ["a"], np.ones((1, 1), bool))
    assert [format_time(window.start) for window in windows.finish()] == ["2026-01-05T00:00Z"]
