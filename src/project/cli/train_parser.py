"""The parser of commands with a Trainer: model and data are chosen by class."""

import json
import re
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._loaders_dumpers import yaml_load
from lightning.pytorch.cli import LightningArgumentParser

from project import datamodules, modules
from project.cli.parser import Parser, named
from project.interface import import_object


def load_yaml(text: str) -> Any:
    """Read YAML; a name that is no UTF-8, at which libyaml fails, is taken as it is, or from its escapes."""
    if r"\uDC" in text:
        return yaml.safe_load(text)
    try:
        return yaml_load(text)  # type: ignore[no-untyped-call]
    except UnicodeEncodeError:
        return text


set_loader("yaml", load_yaml, (yaml.YAMLError,))


class TrainParser(Parser, LightningArgumentParser):
    """The parser of commands with a Trainer.

    Attributes:
        chosen: The classes whose options `model` and `data` have.
    """

    chosen: dict[str, type[Any]]

    def options(self) -> dict[str, str]:
        """With those of the chosen classes."""
        shown = LightningArgumentParser()
        for key, chosen in self.chosen.items():
            shown.add_lightning_class_args(chosen, key)
        return named([*self._actions, *shown._actions])


def class_of(path: Any, default: type[Any]) -> type[Any]:
    """The class that a class path, or the name of a class of ours, means; a mistake is the parser's to tell."""
    known = {name: found for space in (modules, datamodules) for name, found in vars(space).items()}
    try:
        found = known.get(path) or import_object(str(path))
    except (ImportError, AttributeError, ValueError):
        return default
    return found if isinstance(found, type) else default


def nulls_as_configs(args: list[str]) -> list[str]:
    """Arguments with `--model.net.weights null` as a config: two classes deep, jsonargparse 4.53 makes "None" of it."""
    found: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        name, equals, value = arg.partition("=")
        if not re.match(r"--(model|data)\.\w+\.", name) or name.endswith(".help"):
            found.append(arg)
            continue
        value = value if equals else next(remaining, "")
        if value != "null":
            found.append(f"{name}={value}")
            continue
        group, *parts = name.removeprefix("--").replace(".init_args", "").split(".")
        nested: Any = None
        for part in reversed(parts):
            nested = {"init_args": {part: nested}}
        found += ["--config", json.dumps({group: nested})]
    return found
