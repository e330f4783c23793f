"""Splits, formats and cleaning of text datasets."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.datamodules.sampler import Request
from project.datamodules.texts.duplicates import normal_form
from project.errors import UserError
from project.interface import MultilabelTarget, ValueTarget
from project.texts import TextInput, clean_text
from tests.datamodules.texts.made import reviews, set_up, write


def split_by_text(table: Path, **options: object) -> dict[str, set[str]]:
    """Return the splits in which each text occurs, by its normal form."""
    index = set_up(table, **options).index
    assert index is not None
    found: dict[str, set[str]] = {}
    for text, split in zip(index.keys, index.splits.tolist(), strict=True):
        found.setdefault(normal_form(text), set()).add(split)
    return found


@pytest.fixture
def repeated() -> list[tuple[str, str]]:
    """Reviews of which most are there twice, some in other case, and three under both labels."""
    rows = reviews(60)
    rows += [(text.upper() + " !", label) for text, label in rows[:45]]
    rows += [(text, "neg" if label == "pos" else "pos") for text, label in rows[:3]]
    random.Random(0).shuffle(rows)
    return rows


def test_equal_texts_are_in_one_split(repeated: list[tuple[str, str]], tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", repeated)
    with pytest.warns(
        UserWarning, match=r"3 texts that occur several times have different labels, .*check_texts .*csv"
    ):
        splits = split_by_text(table)
    assert len(splits) == 60 and {len(each) for each in splits.values()} == {1}
    assert set.union(*splits.values()) == {"train", "val", "test"}
    held_out = [split_by_text(table, folds=3, fold=fold) for fold in range(3)]
    for folds in held_out:
        assert {len(each) for each in folds.values()} == {1}
    assert all(sum(folds[text] == {"test"} for folds in held_out) == 1 for text in splits)


def test_equal_texts_and_groups(repeated: list[tuple[str, str]], tmp_path: Path) -> None:
    """A group stays in one split, and so do the groups that share a text."""
    rows = [(*row, f"author{number % 90}") for number, row in enumerate(repeated)]
    table = write(tmp_path / "t.csv", rows, ("text", "label", "author"))
    from project.datamodules.texts.origin import TextColumns

    columns = TextColumns(group="author")
    with pytest.warns(UserWarning, match="groups share texts, and stay together as"):
        splits = split_by_text(table, columns=columns)
    assert {len(each) for each in splits.values()} == {1} and len(set.union(*splits.values())) == 3
    index = set_up(table, columns=columns).index
    assert index is not None
    author = {text: name for text, _, name in rows}
    by_author: dict[str, set[str]] = {}
    for text, split in zip(index.keys, index.splits.tolist(), strict=True):
        by_author.setdefault(author[text], set()).add(split)
    assert {len(each) for each in by_author.values()} == {1}


def test_given_splits_are_kept_and_leaks_told(tmp_path: Path) -> None:
    split = ["train", "train", "train", "train", "val", "test"]
    rows = [(*row, split[number % 6]) for number, row in enumerate(reviews(60))]
    rows += [(rows[0][0], rows[0][1], "test"), (rows[5][0], rows[5][1], ""), (rows[1][0] + ".", rows[1][1], "val")]
    table = write(tmp_path / "t.csv", rows, ("text", "label", "split"))
    with pytest.warns(UserWarning, match=r"2 texts that occur several times are in several splits \(data leakage\)"):
        index = set_up(table).index
    assert index is not None
    found = sorted(zip(index.keys, index.splits.tolist(), strict=True))
    expected = sorted((text, "test" if text == rows[5][0] else given) for text, _, given in rows)
    assert found == expected, "a text without a split joins its equal"
    rows += [(f"{text}?", label, "val") for text, label, given in rows[:40] if given == "train"]
    table = write(tmp_path / "t.csv", rows, ("text", "label", "split"))
    for fold in range(2):  # folds replace train and val, not test
        index = set_up(table, folds=2, fold=fold).index
        assert index is not None
        texts: dict[str, set[str]] = {}
        for text, each in zip(index.keys, index.splits.tolist(), strict=True):
            texts.setdefault(normal_form(text), set()).add(each)
        assert [text for text, splits in texts.items() if len(splits) > 1] in ([], [normal_form(rows[0][0])])


def test_normal_form_keeps_what_tells_texts_apart() -> None:
    for one, other in (("Good,  FILM!", "good film"), ("\uff27\uff4f\uff4f\uff44", "good"), ("Stra\xdfe", "STRASSE")):
        assert normal_form(one) == normal_form(other)
    for one, other in (
        ("\u0915\u0940", "\u0915\u093e"),
        ("ok \U0001f44d", "ok \U0001f44e"),
        ("!!!", "???"),
        ("5 $", "5"),
    ):
        assert normal_form(one) != normal_form(other)


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16", "cp1252", "gb18030", "jsonl", "parquet", "tsv"])
def test_formats_and_encodings(name: str, tmp_path: Path) -> None:
    """All give the same texts and classes."""
    chinese = name in ("gb18030", "jsonl", "utf-16")
    extra = "\u623f\u95f4\u5f88\u5927\uff0c\u65e9\u9910\u4e0d\u9519" if chinese else "d\xe9j\xe0 vu"
    rows = [(f'{text} {extra} "{number}, yes"', label) for number, (text, label) in enumerate(reviews(30))]
    if name in ("jsonl", "parquet"):
        if name == "parquet":
            pytest.importorskip("pyarrow")
        table = write(tmp_path / f"t.{name}", rows)
    elif name == "tsv":
        table = tmp_path / "t.tsv"
        table.write_text("".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows]))
    else:
        table = write(tmp_path / "t.csv", rows)
        table.write_bytes(table.read_text().encode(name))
    datamodule = set_up(table)
    assert datamodule.index is not None
    found = {(text, datamodule.index.label_text(row)) for row, text in enumerate(datamodule.index.keys)}
    assert found == set(rows)


def test_folders_in_all_layouts(tmp_path: Path) -> None:
    rows = reviews(40)
    kind = ["train", "train", "val", "test"]
    for number, (text, label) in enumerate(rows):
        raw = text.encode("utf-16" if number == 0 else "utf-8") if number != 1 else f"{text} \xe9t\xe9".encode("cp1252")
        split = kind[number // 2 % 4]
        for layout in (f"a/{label}", f"b/{split}/{label}", f"c/{label}/{split}"):
            (tmp_path / layout).mkdir(parents=True, exist_ok=True)
            (tmp_path / layout / f"{number}.txt").write_bytes(raw)
    (tmp_path / "a" / "pos" / "empty.txt").write_text("\ufeff \n")
    (tmp_path / "a" / "pos" / "notes.md").write_text("no sample")
    with pytest.warns(UserWarning) as caught:
        indexes = [set_up(tmp_path / name).index for name in "abc"]
    shown = " ".join(str(warning.message) for warning in caught)
    assert (
        "1 empty text skipped" in shown and "1 .md" in shown and "1.txt is not in UTF-8: read as Windows-1252" in shown
    )
    expected = {text for text, _ in rows} - {rows[1][0]} | {f"{rows[1][0]} \xe9t\xe9"}
    for index in indexes:
        assert index is not None and set(index.keys) - {""} == expected
    assert indexes[1] is not None and indexes[2] is not None
    for index in indexes[1:]:
        assert index is not None and [len(index.rows(split)) for split in ("train", "val", "test")] == [20, 10, 10]
    (tmp_path / "a" / "neg" / "binary.txt").write_bytes(b"PNG\0\0")
    with pytest.raises(UserError, match=r"binary.txt, line 1: NUL bytes, .* save it as plain text in UTF-8"):
        set_up(tmp_path / "a")


def test_empty_texts_and_unknown_classes(tmp_path: Path) -> None:
    rows = [*reviews(40), ("", "pos"), (" \u200b\u3000", "neg")]
    with pytest.warns(UserWarning, match="2 empty texts skipped"):
        datamodule = set_up(write(tmp_path / "t.csv", rows))
    assert datamodule.size == 40 and sum(datamodule.split_sizes().values()) == 40
    with pytest.raises(UserError, match="has only empty texts: is --data.columns.text"):
        set_up(write(tmp_path / "t.csv", [("", label) for _, label in reviews(4)]))
    split = [(*row, ("train", "val", "test")[number // 2 % 3]) for number, row in enumerate(reviews(30))]
    table = write(tmp_path / "t.csv", [*split, ("odd one", "new", "test")], ("text", "label", "split"))
    with pytest.raises(UserError, match="class 'new' in .* has no texts in the train split"):
        set_up(table)
    few = [*reviews(20), ("odd one", "new")]
    with pytest.raises(UserError, match="class 'new' in .* has 1 text, too few to split .*: add texts"):
        set_up(write(tmp_path / "t.csv", few))


def test_labels_and_values(tmp_path: Path) -> None:
    rows = [(text, ["film", label] if number % 3 else [label]) for number, (text, label) in enumerate(reviews(60))]
    target = set_up(write(tmp_path / "t.jsonl", rows), label_separator="|").description.target
    assert isinstance(target, MultilabelTarget) and target.names == ["film", "neg", "pos"]
    rows = [(text, len(text) / 8 + 0.01) for text, _ in reviews(60)]
    target = set_up(write(tmp_path / "t.csv", [*rows, *rows])).description.target
    assert isinstance(target, ValueTarget) and target.names == ["label"]


def test_odd_characters_in_json(tmp_path: Path) -> None:
    """NUL, zero-width characters, line separators and half of a surrogate pair."""
    odd = ["a\0b", "a\u200bc", "one\u2028two\x85three", "half \ud83d pair", "\ufeffmarked", "cafe\u0301", "\udcff byte"]
    rows = [*reviews(40), *((text, "pos") for text in odd)]
    index = set_up(write(tmp_path / "t.jsonl", rows)).index
    assert index is not None
    expected = {"ab", "ac", "one\u2028two\x85three", "half \ufffd pair", "marked", "caf\xe9", "\udcff byte"}
    assert expected == set(index.keys) - {text for text, _ in reviews(40)}


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    rows = [*reviews(40), ("\u5f88" * 70_000, "pos"), ("word " * 40_000, "neg")]
    datamodule = set_up(write(tmp_path / "t.csv", rows), max_bytes=1000)
    assert "at most 210,000; 2 (4.8%) are cut after 1,000" in datamodule.notes[0]
    assert datamodule.index is not None
    lengths = {len(batch) for batch in [datamodule.dataset("")[Request(0, [])].inputs]}
    assert lengths == {0}
    longest = int(np.argmax(datamodule.index.keys.lengths))
    raw = TextInput(1000).read(datamodule.index.keys.encoded(longest).tobytes())
    assert raw.tobytes().decode() == "\u5f88" * 333


@given(st.text(), st.integers(4, 40))
def test_cut_at_the_boundary_of_a_character(text: str, length: int) -> None:
    inputs, clean = TextInput(length), clean_text(text)
    raw = inputs.read(text).tobytes()
    assert len(raw) <= length and clean.startswith(raw.decode()) and b"\0" not in raw
    whole = clean.encode()
    assert raw == whole if len(whole) <= length else len(raw) > length - 4
    assert raw == inputs.read(whole).tobytes(), "from the bytes of a clean text"


@given(st.binary(max_size=60), st.integers(4, 40))
def test_bytes_that_are_not_utf8_are_cut_too(raw: bytes, length: int) -> None:
    found = TextInput(length).read(raw).tobytes()
    assert raw.startswith(found) and min(len(raw), length - 3) <= len(found) <= length
