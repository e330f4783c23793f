"""Tests of `train.py explain` and of the report for texts."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from project.cli import main
from tests.explain.texts.planted import PLANTED, planted, write_texts

pytestmark = pytest.mark.slow

CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]
FIT = ["fit", "--data", "project.datamodules.texts.TextDataModule", "--data.table", "texts.csv", *CPU]
FIT += ["--model.net", "project.modules.networks.texts.ByteNet", "--model.optimizer.lr", "1e-2"]
EXPLAIN = ["explain", "--ckpt_path", "best", *CPU]
HOSTILE = '<script>alert(1)</script> & "great" <b>great</b>'


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_words_are_highlighted_in_the_page_and_the_report(
    here: Path, failing: Callable[[list[str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["negative", "positive"]
    rows = [("".join(words), names[label]) for words, _, label in [*planted("english", 200), *planted("chinese", 200)]]
    write_texts([("text", "label"), *rows])
    main([*FIT, "--trainer.max_epochs", "6"])
    samples = json.loads(Path("logs/run/version_0/test.json").read_text())["samples"]
    explained = [each for kind in ("mistakes", "uncertain") for each in samples[kind]]
    assert explained and all("".join(word for word, _ in each["parts"]) == each["text"] for each in explained)
    assert all(max(abs(value) for _, value in each["parts"]) == 1 for each in explained)
    report = Path("logs/run/version_0/report.html").read_text()
    assert report.count("<mark") > len(explained) and "Colors: words" in report

    capsys.readouterr()
    main([*EXPLAIN, "--methods", "[integrated_gradients, occlusion]", "--images", "9"])
    shown = capsys.readouterr().out
    assert "9 texts of texts.csv" in shown and "occlusion  " in shown and "integrated_gradients  " in shown
    run = here / "logs" / "explain" / "version_0"
    found = table(run / "explanations.csv")
    assert len(found) == 18 and {row["label"] for row in found} <= {*names}
    decisive = {word for pair in PLANTED.values() for word in pair}
    hits = [row["words"].split(" ")[0].strip(",.") in decisive for row in found if row["label"] == row["predicted"]]
    assert sum(hits) >= 0.8 * len(hits) > 0
    areas = [sum(float(row[name]) for row in found) for name in ("deletion", "random_deletion", "random_insertion")]
    assert areas[0] < areas[1] and areas[2] < sum(float(row["insertion"]) for row in found)
    words = table(run / "words.csv")
    for label, name in enumerate(names):
        first = [row["word"] for row in words if row["class"] == name][:2]
        assert sorted(first) == sorted(pair[label] for pair in PLANTED.values())
    assert all(int(row["texts"]) > 1 for row in words)
    metadata = (run / "00000" / "features" / "metadata.tsv").read_text().splitlines()
    assert metadata[0] == "label\tpredicted\ttext" and len(metadata) > 9

    main([*EXPLAIN, "--text", HOSTILE, "--class_name", "negative"])
    page = (here / "logs" / "explain" / "version_1" / "explanations.html").read_text()
    assert "<script" not in page and "<b>great" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert re.sub(r"<[^>]+>", "", page).count("&#34;great&#34;") == 2, "once for each class"
    found = table(here / "logs" / "explain" / "version_1" / "explanations.csv")
    assert {row["class"] for row in found} == {*names} and {row["label"] for row in found} == {""}
    assert {row["text"] for row in found} == {HOSTILE} and not (here / "logs/explain/version_1/words.csv").exists()

    Path("long.txt").write_text("we saw it " * 100 + "great", encoding="utf-8")
    capsys.readouterr()
    main([*EXPLAIN, "--data.root", "long.txt"])
    assert "1 text of more than 256 words explained by spans of words" in capsys.readouterr().out

    assert "for texts, use occlusion or integrated_gradients" in failing([*EXPLAIN, "--methods", "gradcam"])
    assert "--ablation is for images" in failing([*EXPLAIN, "--ablation", "true"])
    assert "no class named neutral" in failing([*EXPLAIN, "--class_name", "neutral"])
    assert not (here / "logs" / "explain" / "version_3").exists(), "a failed command leaves no folder"


@pytest.mark.parametrize("kind", ["labels", "values"])
def test_labels_and_values_are_explained(kind: str, here: Path) -> None:
    rows = []
    for number, (words, _, label) in enumerate(planted("english", 200)):
        extra = number // 2 % 2
        text = "".join([*words, " tasty"][: len(words) + extra])
        rows.append([text, label, extra] if kind == "labels" else [text, 40.5 * label + 20, extra * 1e-7])
    write_texts([("text", "great", "tasty"), *rows])
    main([*FIT, "--data.columns.label", "[great, tasty]", "--trainer.max_epochs", "8"])
    main([*EXPLAIN, "--images", "20", "--class_name", "tasty"])
    found = [row for row in table(Path("logs/explain/version_0/explanations.csv")) if row[kind[:-1]] == "tasty"]
    assert len(found) == 20
    with_word = [row for row in found if "tasty" in row["text"]]
    assert with_word and all(row["words"].startswith("tasty +") for row in with_word)
    words = table(Path("logs/explain/version_0/words.csv"))
    assert next(row for row in words if row[kind[:-1]] == "tasty")["word"] == "tasty"
