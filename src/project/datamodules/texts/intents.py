"""Commands to a smart home, the embedded dataset of texts."""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from project.datamodules.builder import DatasetBuilder
from project.datamodules.texts.intent_names import NAMES
from project.errors import UserError
from project.files import write_table
from project.interface import Split

PER_TEMPLATE = 20
"""Sentences drawn from a template; short templates have fewer distinct ones."""
TEST, VAL = 0.2, 0.1
"""Shares of the templates of each intent."""
GROUP = re.compile(r"\([^()\[\]]*\)|\[[^()\[\]]*\]")  # an innermost one
REFERENCE = re.compile(r"([<{]\w+)(?::\w+)?[>}]")


class HomeIntents(DatasetBuilder):
    """What a person says to a smart home, labelled with the intent, e.g. `turn the lamp off` with HassTurnOff.

    The sentences are drawn from the templates of the package `home-assistant-intents` (Apache-2.0). The splits share no
    template: 20 % of the templates of each intent are in test, at least one where there are two, and 10 % in val.
    Sentences that several templates of an intent produce are kept once, and those of several intents are left out.

    Args:
        language: Language of the sentences.

    Raises:
        UserError: The package is not installed, or has no templates of the language.
    """

    table: ClassVar[str] = "intents.csv"

    def __init__(self, language: Literal["en", "zh-CN"] = "en") -> None:
        if language not in NAMES:
            raise UserError(f"HomeIntents.language must be one of {', '.join(NAMES)}, got {language}")
        self.language = language

    @property
    @override
    def name(self) -> str:
        return f"homeintents_{self.language.lower()}"

    @override
    def write(self, folder: Path) -> None:
        """Write FOLDER/intents.csv with columns text, label, split and group, which is the template."""
        try:
            from home_assistant_intents import get_intents
        except ImportError as error:
            raise UserError("HomeIntents needs home-assistant-intents: pip install -e '.[text]'") from error
        source = get_intents(self.language)
        assert source is not None
        write_table(folder / self.table, intent_rows(source, NAMES[self.language]))


def intent_rows(source: dict[str, Any], names: dict[str, str]) -> list[dict[str, str]]:
    """Return rows of text, label, split and group, always the same for the same source.

    Args:
        source: Templates by intent, expansion rules and lists, in the format of the package.
        names: Alternatives, separated by `|`, of the slots that have no list; of the slot `name`, by domain.
    """
    draw, origins = np.random.default_rng(0), dict[str, list[tuple[str, str, int]]]()
    lists = {name: _alternatives(values) for name, values in source["lists"].items() if "wildcard" not in values}
    parts = {f"<{name}": rule for name, rule in source["expansion_rules"].items()}
    parts |= {f"{{{name}": values for name, values in (lists | names).items()}
    for intent, content in source["intents"].items():
        templates = [(text, _domains(part)) for part in content["data"] for text in part["sentences"]]
        splits = _splits(len(templates), draw)
        for number, (template, domains) in enumerate(templates):
            parts["{name"] = "|".join(names[domain] for domain in domains)
            texts = [_sentence(template, parts, draw) for _ in range(PER_TEMPLATE)]
            for text in dict.fromkeys(texts):
                origins.setdefault(text, []).append((intent, splits[number], number))
    return [
        {"text": text, "label": intent, "split": split, "group": f"{intent}/{number}"}
        for text, ((intent, split, number), *others) in origins.items()
        if all(other == intent for other, _, _ in others)
    ]


def _splits(templates: int, draw: np.random.Generator) -> list[Split]:
    test, val = max(int(templates > 1), round(TEST * templates)), round(VAL * templates)
    counts: list[tuple[Split, int]] = [("test", test), ("val", val), ("train", templates - test - val)]
    splits = [split for split, count in counts for _ in range(count)]
    return [splits[place] for place in draw.permutation(templates)]


def _domains(part: dict[str, Any]) -> list[str]:
    """Return the kinds of devices that the templates are about."""
    named = part.get("requires_context", {}).get("domain") or part.get("slots", {}).get("domain") or "switch"
    return [name for name in ([named] if isinstance(named, str) else named) if not name.startswith("input_")]


def _alternatives(values: dict[str, Any]) -> str:
    if "range" in values:
        limits = values["range"]
        return "|".join(map(str, range(limits["from"], limits["to"] + 1, limits.get("step", 1))))
    return "|".join(value["in"] for value in values["values"])


def _sentence(template: str, parts: dict[str, str], draw: np.random.Generator) -> str:
    """Return a random sentence of a template: `(a|b)`, `[optional]`, `(in any;order)`, `<rule>`, `{slot:its_name}`."""

    def choose(group: re.Match[str]) -> str:
        if ";" in group[0]:
            return " ".join(draw.permutation(group[0][1:-1].split(";")))
        options = group[0][1:-1].split("|") + [""] * group[0].startswith("[")
        return options[draw.integers(len(options))]

    text, changes = template, 1
    while changes:
        text, chosen = GROUP.subn(choose, text)
        text, inserted = REFERENCE.subn(lambda match: f"({parts[match[1]]})", text)
        changes = chosen + inserted
    return " ".join(text.split())
