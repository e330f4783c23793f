"""Parsing of options on the command line and in config files."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from project.errors import UserError


def configs_first(args: list[str]) -> list[str]:
    """Move every config before the other options, so that the command line always overrides configs.

    `--trainer.callbacks X` becomes `--trainer.callbacks+ X`: callbacks on the command line are appended. Empty configs
    are dropped.
    """
    configs: list[str] = []
    rest: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        if arg in ("-c", "--config") or arg.startswith("--config="):
            file = arg.partition("=")[2] if "=" in arg else next(remaining, "")
            configs += [] if Path(file).is_file() and read_config(Path(file)) is None else ["--config", file]
        else:
            rest.append(re.sub(r"^--trainer\.callbacks(?=$|=)", "--trainer.callbacks+", arg))
    return rest[:1] + configs + rest[1:]


def option_pairs(args: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each option, written as `--name value` or `--name=value`."""
    for option, following in pairwise([*args, ""]):
        if option.startswith("--"):
            name, equals, value = option[2:].partition("=")
            yield name, value if equals else following


def read_config(file: Path) -> Any:
    """Load a YAML file."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not a text file") from error
    except yaml.reader.ReaderError as error:
        raise UserError(f"{file}: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        where = f", line {at.line + 1}, column {at.column + 1}" if at else ""
        raise UserError(f"{file}{where}: {error.problem}; check the colons, quotes and indentation") from error


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys; None values are dropped."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat


def option_name(name: str) -> str:
    """Return an option's name without `.init_args` and `.class_path`."""
    return name.replace(".init_args", "").removesuffix(".class_path")


def peek_options(args: list[str]) -> dict[str, Any]:
    """Return the options on the command line and in configs, by plain name, without validation.

    Used to find the run before the parser is built. Later arguments override earlier ones.
    """
    options: dict[str, Any] = {}
    for name, value in option_pairs(args):
        if name == "config":
            options |= _plain_options(read_config(Path(value)), Path(value).parent) if Path(value).is_file() else {}
        elif name in GROUPS and Path(value).is_file():
            options |= _plain_options({name: value}, Path())
        else:
            options[option_name(name)] = value
    return options


GROUPS = ("model", "data", "trainer")  # their value may be a YAML file with the options of the group


def _plain_options(config: Any, folder: Path) -> dict[str, Any]:
    config = dict(config) if isinstance(config, dict) else {}
    for group in GROUPS:
        if isinstance(file := config.get(group), str) and (folder / file).is_file():
            config[group] = read_config(folder / file)
    return {option_name(name): value for name, value in flatten(config).items()}
