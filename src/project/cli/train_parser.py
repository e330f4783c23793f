"""Argument parser of commands with a Trainer, in which `model` and `data` are chosen by class."""

import json
import re
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._loaders_dumpers import yaml_load
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from project import datamodules, modules
from project.cli.parser import Parser, option_spellings
from project.interface import import_object


def load_yaml(text: str) -> Any:
    """Parse YAML, and return a value that is not valid UTF-8, on which libyaml fails, as a string."""
    if r"\uDC" in text:
        return yaml.safe_load(text)
    try:
        return yaml_load(text)  # type: ignore[no-untyped-call]
    except UnicodeEncodeError:
        return text


set_loader("yaml", load_yaml, (yaml.YAMLError,))


class TrainParser(Parser, LightningArgumentParser):
    """Parser of commands with a Trainer.

    Attributes:
        chosen: Classes of `model` and `data`.
    """

    chosen: dict[str, type[Any]]

    @override
    def options(self) -> dict[str, str]:
        parser = LightningArgumentParser()
        for key, chosen in self.chosen.items():
            parser.add_lightning_class_args(chosen, key)
        return option_spellings([*self._actions, *parser._actions])


def class_of(path: Any, default: type[Any]) -> type[Any]:
    """Return the class with this class path or short name; `default` if there is none, which the parser reports."""
    short_names = {name: value for namespace in (modules, datamodules) for name, value in vars(namespace).items()}
    try:
        cls = short_names.get(path) or import_object(str(path))
    except (ImportError, AttributeError, ValueError):
        return default
    return cls if isinstance(cls, type) else default


def nulls_as_configs(args: list[str]) -> list[str]:
    """Replace options such as `--model.net.weights null` by configs.

    For an option of a class within a class, jsonargparse 4.53 parses null as the string "None".
    """
    result: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        name, equals, value = arg.partition("=")
        if not re.match(r"--(model|data)\.\w+\.", name) or name.endswith(".help"):
            result.append(arg)
            continue
        value = value if equals else next(remaining, "")
        if value != "null":
            result.append(f"{name}={value}")
            continue
        group, *parts = name.removeprefix("--").replace(".init_args", "").split(".")
        nested: Any = None
        for part in reversed(parts):
            nested = {"init_args": {part: nested}}
        result += ["--config", json.dumps({group: nested})]
    return result
