"""Odd texts go through fit, predict and check_texts."""

import csv
from pathlib import Path

import pytest

from project.cli import main
from tests.datamodules.texts.made import FIT, reviews, write

ODD = [
    "",
    " \t\u3000",
    "a",
    "\u597d",
    "\U0001f600" * 300,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "e\u0301" * 600,
    "\u0301\u0301 only marks",
    "\u202eright to left\u202c",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\u0e14\u0e35\u0e21\u0e32\u0e01",
    "\U00020bb7\u91ce\u5bb6",
    "NULL",
    "nan",
    "1e999",
    "=1+1",
    "-3",
    "'; DROP TABLE reviews; --",
    '"quoted", with ""commas"",,',
    "several\nlines\r\nof\rtext",
    "{{ braces }} {0} %s %d $HOME `ls`",
    "[bold]rich markup[/bold] [/]",
    "<script>alert(1)</script> &lt;b&gt;",
    "../../etc/passwd",
    "--data.text",
    "\ufffd\ufffe\uffff",
    "control \x01\x08\x1b[31m \x7f characters",
    "bytes \udc80\udcff\udce9",
    "word " * 40_000,
    "x" * 200_000,
    "\u5f88" * 70_000,
]


def test_odd_texts_go_through_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [*reviews(60), *((text, ("pos", "neg")[number % 2]) for number, text in enumerate(ODD))]
    table = write(tmp_path / "odd.csv", rows)
    with pytest.warns(UserWarning) as caught:
        main([*FIT, "--data.table", str(table), "--trainer.devices", "1", "--data.max_bytes", "512"])
    told = " ".join(str(warning.message) for warning in caught)
    assert "2 empty texts skipped" in told and "with control characters, which are kept" in told
    assert "not valid UTF-8, which are kept" in told
    shown = capsys.readouterr().out
    assert "5 (5.6%) are cut after 512" in shown and "accuracy" in shown
    unlabeled = write(tmp_path / "new.csv", list(enumerate(ODD)), ("id", "text"))
    main(["predict", "--ckpt_path", "best", "--data.table", str(unlabeled), "--trainer.accelerator", "cpu"])
    file = next(tmp_path.rglob("predictions.csv"))
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        predicted = list(csv.DictReader(stream))
    assert len(predicted) == len(ODD) and {row["class"] for row in predicted} <= {"pos", "neg"}
    assert predicted[13]["text"] == "nan" and predicted[17]["text"] == "'; DROP TABLE reviews; --"
    for text in ("--data.text", "", "\U0001f600"):
        main(["predict", "--ckpt_path", "best", f"--text={text}", "--trainer.accelerator", "cpu"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["check_texts", str(table), "--max_bytes", "512", "--min_texts", "200"])
    assert stopped.value.code == 1, "too few texts"
    shown = capsys.readouterr().out
    assert "91 texts" in shown and "control characters (1)" in shown and "bytes that are not UTF-8 (1)" in shown
    assert "\x1b[31m" not in shown, "the terminal is not controlled by a text"
    with (tmp_path / "logs" / "check_texts" / "findings.csv").open(errors="surrogateescape") as stream:
        kinds = {row["kind"] for row in csv.DictReader(stream)}
    assert {"empty", "markup", "replacement characters", "uncommon script"} <= kinds
