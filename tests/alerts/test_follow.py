"""Reading of a table that grows."""

from pathlib import Path

import pytest

from project.alerts.follow import GrowingTable
from project.alerts.rows import AlertColumns, RowReader, Rows
from project.errors import UserError

HEADER = "text,time\n"


def open_table(file: Path, start: str) -> GrowingTable:
    """Write the start of a table, and open it."""
    file.write_text(start)
    return GrowingTable(file, RowReader("text", AlertColumns()))


def texts(rows: Rows | None) -> list[str]:
    return rows.texts if rows else []


def append(file: Path, content: str) -> None:
    with file.open("a") as stream:
        stream.write(content)


def test_only_complete_rows_are_read(tmp_path: Path) -> None:
    file = tmp_path / "news.csv"
    table = open_table(file, "text,")
    assert table.read() is None
    append(file, "time\n")
    assert table.read() is None
    append(file, "one,2026-01-05T10:00Z\ntwo,2026-01-05T1")
    rows = table.read()
    assert rows and rows.texts == ["one"] and rows.times.tolist() == [1767607200.0]
    append(file, '1:00Z\n"several\n')
    assert texts(table.read()) == ["two"]
    append(file, 'lines, quoted",2026-01-05T12:00Z\n')
    assert texts(table.read()) == ["several\nlines, quoted"]
    assert table.read() is None and table.notes == []


def test_unreadable_lines_are_counted_once_the_table_is_open(tmp_path: Path) -> None:
    file = tmp_path / "news.csv"
    with pytest.raises(UserError, match=r"news.csv, line 3: 1 cell, .* header has 2"):
        open_table(file, HEADER + "one,2026-01-05\nbroken\n").read()
    table = open_table(file, HEADER + "one,2026-01-05\n")
    table.read()
    table.notes.clear()
    append(file, "broken\ntwo,2026-01-06\nthree,soon\n")
    assert texts(table.read()) == ["two"]
    assert any("skipping 2 lines" in note and "1 cell" in note and str(file) in note for note in table.notes)
    append(file, "four,soon\nfive,2026-01-07\n")
    assert texts(table.read()) == ["five"]
    assert any("skipping 1 row without a readable time" in note and "'soon'" in note for note in table.notes)


def test_one_stray_quotation_mark_does_not_stop_the_table(tmp_path: Path) -> None:
    file = tmp_path / "news.csv"
    table = open_table(file, HEADER + "one,2026-01-05\n")
    table.read()
    append(file, '5" pipes,2026-01-06\n' + "more,2026-01-06\n" * 120)
    assert len(texts(table.read())) == 121


@pytest.mark.parametrize("change", ["truncated", "written anew", "replaced"])
def test_changes_of_the_file_are_noticed(tmp_path: Path, change: str) -> None:
    file = tmp_path / "news.csv"
    table = open_table(file, HEADER + "".join(f"row {i},2026-01-05\n" for i in range(20)))
    assert len(texts(table.read())) == 20
    table.notes.clear()
    new = HEADER + "another,2026-01-06\n" * (1 if change == "truncated" else 40)
    if change == "replaced":
        append(file, "last of the old one,2026-01-06")
        file.rename(tmp_path / "news.csv.1")
        assert table.read() is None
        assert "is gone" in table.notes.pop()
        file.write_text(new)
        assert texts(table.read()) == ["last of the old one"]
    else:
        file.write_text(new)
    assert set(texts(table.read())) == {"another"}
    assert any(("replaced" if change == "replaced" else "truncated or written anew") in note for note in table.notes)


def test_formats(tmp_path: Path) -> None:
    lines = tmp_path / "news.jsonl"
    table = open_table(lines, '{"text": "one", "time": 1767607200}\n{"text": "tw')
    assert texts(table.read()) == ["one"]
    append(lines, 'o", "time": 1767607201}\n')
    assert texts(table.read()) == ["two"]
    (tmp_path / "news.parquet").write_bytes(b"PAR1...")
    with pytest.raises(UserError, match="--follow reads CSV, TSV and JSON Lines"):
        GrowingTable(tmp_path / "news.parquet", RowReader("text", AlertColumns()))
