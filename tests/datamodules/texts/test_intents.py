"""Built-in commands to a smart home."""

from collections import defaultdict
from pathlib import Path

import pytest

from project.datamodules.texts import HomeIntents
from project.datamodules.texts.intents import intent_rows
from project.errors import UserError
from project.files import read_table

pytest.importorskip("home_assistant_intents")
COLUMNS = ["text", "label", "split", "group"]
TEMPLATES = {
    "intents": {
        "On": {"data": [{"sentences": ["<turn> {name} on", "[please] (on;{level:x})"], "slots": {"domain": "fan"}}]},
        "Off": {"data": [{"sentences": ["{name} off", "<turn> (off|out)"], "requires_context": {"domain": ["fan"]}}]},
        "Odd": {"data": [{"sentences": ["fan off"]}]},
    },
    "expansion_rules": {"turn": "(turn|switch)"},
    "lists": {"level": {"range": {"from": 1, "to": 2}}, "name": {"wildcard": True}},
}


def test_templates_are_expanded() -> None:
    rows = intent_rows(TEMPLATES, {"fan": "fan|big fan", "switch": "plug"})
    texts = defaultdict(set)
    for row in rows:
        texts[row["label"]].add(row["text"])
    assert {"turn fan on", "switch big fan on"} <= texts["On"]
    assert {"on 1", "2 on", "please 1 on"} & texts["On"]
    assert "fan off" not in {row["text"] for row in rows}  # of two intents
    assert "big fan off" in texts["Off"]


@pytest.mark.parametrize(("language", "intents"), [("en", 42), ("zh-CN", 40)])
def test_splits_share_no_template_and_no_sentence(tmp_path: Path, language: str, intents: int) -> None:
    source = HomeIntents(language)  # type: ignore[arg-type]
    rows = read_table(source.prepare(tmp_path) / source.table, COLUMNS)
    splits = defaultdict(set)
    for row in rows:
        splits[row["group"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert len({row["text"] for row in rows}) == len(rows) > 10_000
    assert not set("()[]{}<>|;") & set("".join(row["text"] for row in rows))
    assert len({row["label"] for row in rows if row["split"] == "train"}) == intents
    again = HomeIntents(language)  # type: ignore[arg-type]
    assert read_table(again.prepare(tmp_path / "again") / again.table, COLUMNS) == rows


def test_unknown_language_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"language must be one of en, zh-CN, got fr"):
        HomeIntents("fr")  # type: ignore[arg-type]
