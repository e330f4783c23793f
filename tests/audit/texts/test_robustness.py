"""Corruptions of texts, and `robustness` of a model with a known weakness."""

import csv
import random
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from project.audit.texts.corruptions import CORRUPTIONS, corrupt
from project.cli import main

RUN = Path("logs/run/version_0")
TEXTS = [
    "The quick brown fox jumps over the lazy dog near the river bank. " * 3,
    "我昨天去看了一部很好的电影, it was ＧＯＯＤ. " * 4,
]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("text", TEXTS, ids=["english", "mixed"])
def test_corruptions_grow_with_severity_and_change_only_what_they_say(name: str, text: str) -> None:
    changed = [corrupt(text, name, severity) for severity in range(1, 6)]
    assert changed[2] == corrupt(text, name, 3) != corrupt(text, name, 3, seed=1), "deterministic for a seed"
    assert [corrupt(empty, name, 5) for empty in ("", "!")] in (["", "!"], ["", "！"], ["", ""], ["", "!!"], ["", "! "])
    letters, without = Counter(text), Counter("".join(text.split()))
    for each in changed:
        expected = {
            "character_swap": Counter(each) == letters and [*map(str.isspace, each)] == [*map(str.isspace, text)],
            "character_deletion": Counter(each) <= letters,
            "character_insertion": set(each) == set(text) and Counter(each) >= letters,
            "added_blanks": Counter("".join(each.split())) == without,
            "missing_blanks": "".join(each.split()) == "".join(text.split()),
            "upper_case": each.upper() == text.upper(),
            "full_width": unicodedata.normalize("NFKC", each) == unicodedata.normalize("NFKC", text),
            "missing_words": Counter(each) <= letters,
        }
        assert expected[name]
    size = [
        len(set(enumerate(text)) - set(enumerate(each))) + abs(len(text) - len(each))
        for each in (changed[0], changed[4])
    ]
    assert size[0] < size[1] and changed[4] != text


@pytest.mark.slow
def test_a_classifier_of_letters_fails_on_full_width_ones(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    rows = [["text", "label"]]
    for number in range(240):
        label = number % 2
        rows.append(["".join(rng.choices(("aeio", "tnsr")[label], k=24)), ("vowels", "consonants")[label]])
    with Path("texts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    data = ["--data", "project.datamodules.texts.TextDataModule", "--data.table", "texts.csv"]
    cpu = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]
    net = ["--model.net", "project.modules.networks.texts.ByteNet", "--model.optimizer.lr", "1e-2"]
    main(["fit", *data, *cpu, *net, "--trainer.max_epochs", "4", "--test_after_fit", "false"])
    main(["robustness", "--ckpt_path", "best", "--images", "30", *cpu])
    shown = capsys.readouterr().out
    assert "30 texts of the test split of texts.csv; clean accuracy 100.00%" in shown
    assert "missing_blanks        skipped: changes none of the texts" in shown
    assert "attacks (fgsm, pgd) do not apply to texts" in shown and "mean of corruptions" in shown
    with (RUN / "robustness.csv").open() as stream:
        accuracy = {(row["name"], int(row["severity"])): float(row["accuracy"]) for row in csv.DictReader(stream)}
    assert accuracy["clean", 0] == 1 and accuracy["character_swap", 5] == 1
    assert accuracy["upper_case", 5] == 1, "ByteNet reads capitals as small letters"
    assert accuracy["full_width", 5] < 0.8, "no full-width letter was seen in training"
    assert {name for name, _ in accuracy} == {"clean", *CORRUPTIONS} - {"missing_blanks"}
