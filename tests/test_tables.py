"""Tables of any separator, encoding and file format, and the files that their rows name."""

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from project.cli import main
from project.datamodules.images.index import index_image_table
from project.datamodules.images.path_matcher import PathMatcher
from project.datamodules.labels import sort_classes
from project.errors import UserError
from project.interface import ClassTarget
from project.tables import PathColumns, check_distinct, load_table
from tests.conftest import QUICK, write_images
from tests.runs import RUN, load

ROWS = [("path", "label"), ("a.png", "Tee"), ("b.png", "Caf\xe9")]
NAMES = {"path": "--columns.path", "label": "--columns.label"}


def text(separator: str = ",", ending: str = "\n") -> str:
    return ending.join(separator.join(row) for row in ROWS)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        *((text(separator).encode(), f"separated by {re.escape(repr(separator))}") for separator in ";\t|"),
        *((text(ending=ending).encode(), "") for ending in ("\r\n", "\r", "\n\n")),
        (("\ufeff" + text()).encode(), ""),
        (b"sep=;\r\n" + text(";").encode(), "separated by ';'"),
        (text().encode("utf-16"), ""),
        (("\ufeff" + text(";")).encode("utf-16-be"), "separated by ';'"),
        (text().encode("cp1252"), "not in UTF-8: read as Windows-1252"),
        (unicodedata.normalize("NFD", text()).encode(), "Unicode normalized .* 1 cell of column label"),
        (text().replace("Tee", "\u00a0Tee\u200b").encode(), "blanks removed around 1 cell of column label"),
        (text().replace(",", " , ").encode(), "blanks .* header: 'path', 'label'"),
        (text().replace("Tee", '"Tee"').replace(",", ', "note, with comma", ').encode(), ""),
        (text().replace("\n", ",,,\n").encode() + b"\n,,,", ""),
    ],
)
def test_separators_encodings_and_blanks(tmp_path: Path, content: bytes, note: str) -> None:
    (tmp_path / "t.csv").write_bytes(content.replace(b'path, "note, with comma"', b"path, note"))
    table = load_table(tmp_path / "t.csv", NAMES)
    assert table.clean("path") == ["a.png", "b.png"] and table.clean("label") == ["Tee", "Caf\xe9"]
    assert re.search(note, "; ".join(table.notes)) if note else not table.notes


def test_tabs_without_quoting_and_gb18030(tmp_path: Path) -> None:
    """If each line is a row, a quotation mark does not open a cell of several lines."""
    (tmp_path / "t.tsv").write_text('path\tlabel\n"a\tx\nb "\ty\n"c ""d"\tz\n')
    assert load_table(tmp_path / "t.tsv", NAMES).cells["path"] == ['"a', 'b "', 'c "d']
    (tmp_path / "t.tsv").write_text('path\tlabel\n"a\nb"\tx\n')
    assert load_table(tmp_path / "t.tsv", NAMES).cells["path"] == ["a\nb"]
    name = "\u6c34\u679c\u5e97\u548c\u83dc\u5e02\u573a"
    (tmp_path / "t.csv").write_bytes(f"path,label\na,{name}\n".encode("gbk"))
    table = load_table(tmp_path / "t.csv", NAMES)
    assert table.clean("label") == [name] and "read as GB 18030" in table.notes[0]


def test_control_characters_are_kept_in_texts_and_refused_in_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,label\na\x08,x\nb,y\x1b[31m\n")
    table = load_table(tmp_path / "t.csv", NAMES)
    assert table.cells["path"] == ["a\x08", "b"] and "2 lines with control characters" in table.notes[0]
    with pytest.raises(UserError, match="line 3: control characters in column label"):
        table.clean("label")


def test_json_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"path": "a\u2028b", "label": ["x", "y"]}\r\n\n{"label": 2.0, "path": null}\n')
    table = load_table(tmp_path / "t.jsonl", NAMES)
    assert table.cells == {"path": ["a\u2028b", ""], "label": ["x|y", "2"]} and table.places == ["line 1", "line 3"]
    for content, message in (("[1]", "expected an object"), ("{", "line 1: not JSON"), (" \n", "is empty")):
        (tmp_path / "t.jsonl").write_text(content)
        with pytest.raises(UserError, match=message):
            load_table(tmp_path / "t.jsonl", NAMES)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"path": ["a", "b", None], "label": ["007", "7", "\xe9 "], "group": [1.0, None, 3.0], "n": [1, 2, 3]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    table = load_table(tmp_path / "t.parquet", NAMES, ["group", "n", "absent"])
    assert table.cells["path"] == ["a", "b", ""] and table.clean("label") == ["007", "7", "\xe9"]
    assert table.cells["group"] == ["1", "", "3"] and table.cells["n"] == ["1", "2", "3"] and len(table.cells) == 4
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match="cannot read .*t.parquet as Parquet"):
        load_table(tmp_path / "t.parquet", NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: add a header"),
        (b" \r\n\t\n", "is empty: add a header"),
        (b"path,label\n", "has a header but no rows"),
        (b"PK\x03\x04\0", "is an Excel workbook or an archive"),
        (b"path,label\na.png,x\0\n", "line 2: NUL bytes"),
        (text().encode("utf-16-le"), "line 1: NUL bytes"),
        (b"\xff\xfea", "is not valid UTF-16"),
        (b"path,label\na.png\n", "line 2: 1 cell, but the header has 2"),
        (b"path,label\na.png,x\nb.png,x,y\n", "line 3: 3 cells, but the header has 2: quote"),
        (b"path,label, label\na,b,c\n", "several columns named 'label'"),
        (b"path,LABEL\na,b\n", "no column 'label'; it has path, LABEL: .* did you mean --columns.label LABEL"),
        (b"path,breed\na,b\n", "no column 'label'; it has path, breed: name one with --columns.label NAME$"),
        (b'path,label\na,"b\n', "line 2: unexpected end of data: within a cell, write quotation marks twice"),
    ],
)
def test_damaged_tables_end_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_table(tmp_path / "t.csv", NAMES)
    with pytest.raises(UserError, match="cannot read .*absent.csv: No such file"):
        load_table(tmp_path / "absent.csv", NAMES)


def test_labels_that_differ_only_in_case_or_blanks() -> None:
    check_distinct(Path("t.csv"), ["Masse", "Ma\xdfe", "7", "007"])
    for other in ("TEA cup", "tea\u00a0cup", "tea  cup", "tea cu\u200bp"):
        with pytest.raises(UserError, match="labels '.*' and '.*' differ only in case or blanks"):
            check_distinct(Path("t.csv"), ["tea cup", "mud", other])


def test_classes_named_by_integers_are_ordered_by_number() -> None:
    assert sort_classes({"10", "2", "0", "-1"}) == ["-1", "0", "2", "10"]
    assert sort_classes({"10", "2", "a"}) == ["10", "2", "a"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a/caf\xe9.JPG", "a/caf\xe9.JPG"),
        ("a/cafe\u0301.jpg", "a/caf\xe9.jpg"),
        ("a/caf\xe9.jpg", "a/cafe\u0301.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\xe9.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"caf\xe9.jpg")),
        ("a/x.JPG", "a/x.jpg"),
        ("a/x.jpg", "./a//x.JPG"),
        ("a/b/x.jpg", "a\\b\\x.jpg"),
        ("a/x.jpg", "a/x"),
        ("a/1.2.840.dcm", "1.2.840"),
        ("a/x.jpg", " x.jpg\u00a0"),
        ("a/x.jpg", "x.png"),
    ],
)
def test_files_are_found_by_other_spellings(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / file).touch()
    found = PathMatcher(lambda: [file], tmp_path).match(name)
    assert os.path.normpath(found) == file if not name.endswith(".png") else found == ""


def test_an_ambiguous_id_names_both_files(tmp_path: Path) -> None:
    matcher = PathMatcher(lambda: ["x.jpg", "a/x.png", "y/z.png", "z.png"], tmp_path)
    assert matcher.match("a/x") == "a/x.png" and matcher.match("z.png") == "z.png"
    with pytest.raises(UserError, match="'z' may be"):
        PathMatcher(lambda: ["a/z.png", "b/z.png"], tmp_path).match("z")


def test_many_ids_take_one_listing(tmp_path: Path) -> None:
    calls: list[int] = []

    def listing() -> list[str]:
        calls.append(1)
        return [f"{number % 100}/{number}.jpg" for number in range(20_000)]

    matcher = PathMatcher(listing, tmp_path)
    assert all(matcher.match(str(number)) for number in range(20_000))
    assert len(calls) == 1


def test_index_of_a_table(tmp_path: Path) -> None:
    write_images(tmp_path, 12, (1, 2, 3))
    rows = [f"{row:03d};{row % 3 + 8}; {'test' if row < 3 else ''};p{row}" for row in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["id;kind;part;who", *rows]))
    columns = PathColumns("kind", "part", "who", path="id")
    index = index_image_table(tmp_path / "t.csv", tmp_path, columns)
    assert index.names == ["8", "9", "10"] and index.labels.tolist() == [0, 1, 2] * 4
    assert index.keys[0] == "000.png" and index.groups is not None and index.groups[11] == "p11"
    assert index.rows("test").tolist() == [0, 1, 2]
    old = index_image_table(tmp_path / "t.csv", tmp_path, columns, trained=ClassTarget(["10", "8", "9", "7"], []))
    assert old.names == ["10", "8", "9", "7"] and old.labels.tolist() == [1, 2, 0] * 4, "the model's order"
    with pytest.raises(UserError, match="has class '10', which the trained model does not have"):
        index_image_table(tmp_path / "t.csv", tmp_path, columns, trained=ClassTarget(["8", "9"], []))
    (tmp_path / "t.csv").write_text("path,label\n000.png,a\n000,b")
    with pytest.raises(UserError, match="line 3: 000.png is listed twice, also in line 2"):
        index_image_table(tmp_path / "t.csv", tmp_path)


def test_a_table_in_all_commands(here: Path, failing: Callable[[list[str]], str]) -> None:
    for number, name in enumerate(("red", "blue")):
        write_images(here / "images" / name, 12, ((200, 0, 0), (0, 0, 200))[number])
    rows = [f"{name}/{i:03d};{name.upper()};{name}{i // 3}" for name in ("red", "blue") for i in range(12)]
    Path("images/t.csv").write_text("\n".join(["id;breed;patient", *rows]))
    named = ["--columns.path", "id", "--columns.label", "breed"]
    with pytest.warns(UserWarning, match="24 paths matched to files, e.g. 'red/000' is red/000.png"):
        main(["check_data", "images", "--table", "images/t.csv", *named, "--min_images", "2"])
    main(["shard", "images", "shards", "--table", "images/t.csv", *named, "--columns.group", "patient"])
    options = ["--data.table", "images/t.csv", *(each.replace("--", "--data.") for each in named)]
    main(["fit", *options, "--data.columns.group", "patient", "--trainer.max_epochs", "1", *QUICK])
    saved = load(RUN)["datamodule_hyper_parameters"]["columns"]
    assert saved == {"path": "id", "label": "breed", "split": None, "group": "patient", "balance": None}
    main(["test", "--ckpt_path", "best"])
    Path("images/other.csv").write_text("id,breed,split\nred/001,RED,test\nblue/001.png,BLUE,test")
    main(["test", "--ckpt_path", "best", "--data.table", "images/other.csv"])
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    assert "--data.labels: renamed to table" in failing(["fit", "--data.labels", "images/t.csv"])
    assert "--labels: renamed to table" in failing(["check_data", "images", "--labels", "images/t.csv"])
    assert "did you mean --data.columns.group?" in failing(["fit", *options, "--data.columns.grop", "patient"])
    Path("old.yaml").write_text("data:\n  group_column: patient\n")
    assert "key group_column: renamed to columns.group" in failing(["fit", "--config", "old.yaml"])


def test_shards_in_the_order_of_the_model(here: Path) -> None:
    from project.datamodules.images.shards import read_shard_index

    pytest.importorskip("litdata")
    for name in ("9", "10"):
        write_images(here / "images" / name, 8, (int(name) * 20, 0, 0))
    rows = [f"{name}/{i:03d}.png,{name}" for name in ("9", "10") for i in range(8)]
    Path("t.csv").write_text("\n".join(["path,label", *rows]))
    main(["shard", "images", "shards", "--table", "t.csv"])
    now, before = read_shard_index("shards", None), read_shard_index("shards", ClassTarget(["10", "9"], []))
    assert now.names == ["9", "10"] and before.names == ["10", "9"]
    assert np.array_equal(now.labels, 1 - before.labels)
