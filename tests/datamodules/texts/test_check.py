"""check_texts finds planted problems."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from project.cli import main
from project.datamodules.texts.near import near_pairs
from tests.datamodules.texts.made import FILLER, reviews, write

HEADER = ("text", "label", "split", "author")


def check(table: Path, out: Path, *more: str) -> dict[tuple[str, str], dict[str, str]]:
    """Run the command; return its findings by kind and place."""
    main(["check_texts", str(table), "--out", str(out), *more])
    return findings(out)


def findings(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "findings.csv").open(encoding="utf-8", errors="surrogateescape") as stream:
        return {(row["kind"], row["other"] or row["place"]): row for row in csv.DictReader(stream)}


def test_a_valid_table_and_folder_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "t.csv", reviews(60))
    assert check(table, tmp_path / "out") == {}
    shown = capsys.readouterr().out
    assert "0 errors, 0 warnings" in shown and "60 texts" in shown and "Latin 100.0%" in shown
    for number, (text, label) in enumerate(reviews(60)):
        (tmp_path / "tree" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / label / f"{number}.txt").write_text(text)
    (tmp_path / "tree" / "pos" / "empty.txt").write_text(" \n")
    assert set(check(tmp_path / "tree", tmp_path / "out", "--max_bytes", "40")) == {("empty", "pos/empty.txt")}
    shown = capsys.readouterr().out
    assert "after 40 bytes" in shown and "cut       0 " not in shown


def test_planted_problems_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = ["train", "train", "val", "val", "test", "test"]
    rows = [(text, label, split[number % 6], f"a{number}") for number, (text, label) in enumerate(reviews(120))]
    train = rows[0][0]
    planted = [
        (train.upper() + "!!", "pos", "test", "b0"),  # line 122: equal to line 2 but for case and punctuation
        (train, "neg", "train", "b1"),
        (rows[1][0].replace("number1", "number 1"), "neg", "test", "b2"),
        ("", "pos", "train", "b3"),
        ("the caf\u00c3\u00a9 was good, really", "pos", "train", "b4"),
        ("the caf\u00e9 \u00ab D\u00c9J\u00c0 VU \u00bb was bad, really", "neg", "train", "b5"),  # not damaged
        ("nice \ufffd\ufffd film with music", "pos", "train", "b6"),
        ("a <b>very</b> good plot &amp; music", "pos", "train", "b7"),
        ("\u0442\u043e\u043b\u044c\u043a\u043e \u0445\u043e\u0440\u043e\u0448\u0435\u0435", "pos", "train", "b8"),
        ("sign in to your p\u0430yp\u0430l account", "neg", "train", "b9"),
        ("bell \x07 rang", "neg", "train", "b10"),
        ("another one of the same author", "neg", "test", "a0"),
    ]
    table = write(tmp_path / "t.csv", [*rows, *planted], HEADER)
    with pytest.raises(SystemExit) as stopped:
        check(table, tmp_path / "out", "--columns.group", "author")
    assert stopped.value.code == 1
    found = findings(tmp_path / "out")
    assert set(found) == {
        ("exact duplicate across splits", "line 122"),
        ("exact duplicate with conflicting labels", "line 123"),
        ("near duplicate across splits", "line 124"),
        ("empty", "line 125"),
        ("mojibake", "line 126"),
        ("replacement characters", "line 128"),
        ("markup", "line 129"),
        ("uncommon script", "line 130"),
        ("scripts mixed in a word", "line 131"),
        ("control characters", "line 132"),
        ("group across splits", "a0"),
    }
    assert "train and test" in found["near duplicate across splits", "line 124"]["detail"]
    severities = Counter(row["severity"] for row in found.values())
    assert severities == {"error": 4, "warning": 7}
    assert "4 errors, 7 warnings" in capsys.readouterr().out


def test_lengths_and_small_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"{text} {'and so on ' * 9 if label == 'pos' else ''}", label) for text, label in reviews(40)]
    table = write(tmp_path / "t.jsonl", [*rows, ("only one", "new")], ("body", "topic"))
    with pytest.raises(SystemExit):
        check(table, tmp_path / "out", "--columns.text", "body", "--columns.label", "topic")
    assert set(findings(tmp_path / "out")) == {("lengths of classes differ", "pos"), ("too few texts", "new")}
    with pytest.raises(SystemExit) as stopped:
        main(["check_texts", str(table)])
    assert stopped.value.code == 2
    assert "no column 'label'; it has body, topic: name one with --columns.label NAME" in capsys.readouterr().err


def test_near_duplicates_match_brute_force() -> None:
    rng = np.random.default_rng(0)
    texts = {" ".join(rng.choice(FILLER, 12)) + f" {number}" for number in range(100)}
    texts |= {f"{text[:20]}x{text[20:]}" for text in texts} | {"", "a", "bc", "\u5f88\u597d\u7684\u9152\u5e97"}
    texts |= {"it was good " * 500 + ending for ending in ("", "and bad", "or not")}
    ordered = sorted(texts)
    grams = []
    for text in ordered:
        raw = f" {text} ".ljust(5).encode()
        grams.append({raw[start : start + 5] for start in range(len(raw) - 4)})
    similarity = {
        (one, other): len(grams[one] & grams[other]) / len(grams[one] | grams[other])
        for one in range(len(grams))
        for other in range(one + 1, len(grams))
    }
    expected = {pair: value for pair, value in similarity.items() if value >= 0.8}
    pairs, values = near_pairs(ordered, 0.8)
    found = dict(zip(map(tuple, pairs.tolist()), values.tolist(), strict=True))
    assert found == pytest.approx(expected) and len(expected) > 50
    assert len(near_pairs([], 0.8)[0]) == len(near_pairs(["a"], 0.8)[0]) == 0
