"""How options are written: on the command line, in configs, and in the config of a run."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from project.errors import UserError


def configs_first(args: list[str]) -> list[str]:
    """Return arguments with every config moved before the options, so that a config never beats the command line.

    `--trainer.callbacks X` becomes `--trainer.callbacks+ X`: callbacks given on the command line append. Configs that
    hold no option, as where all lines are comments, are left out.
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
    """Yield name and value of each option, as `--name value` or `--name=value`."""
    for option, following in pairwise([*args, ""]):
        if option.startswith("--"):
            name, equals, value = option[2:].partition("=")
            yield name, value if equals else following


def read_config(file: Path) -> Any:
    """Return what a YAML file holds."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text file") from error
    except yaml.reader.ReaderError as error:
        raise UserError(f"{file}: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        where = f", line {at.line + 1}, column {at.column + 1}" if at else ""
        raise UserError(
            f"{file}{where}: {error.problem}; see whether a colon, a quote or an indent is amiss"
        ) from error


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted keys; None is left out."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat


def option_name(name: str) -> str:
    """Return an option's name without what only says how its value is built."""
    return name.replace(".init_args", "").removesuffix(".class_path")


def peek_options(args: list[str]) -> dict[str, Any]:
    """Return options by their plain names, as far as arguments and plain YAML tell: what decides which run is meant.

    Of arguments in order, a later one beats an earlier one; nothing is checked.
    """
    found: dict[str, Any] = {}
    for name, value in option_pairs(args):
        if name == "config":
            found |= _said(read_config(Path(value)), Path(value).parent) if Path(value).is_file() else {}
        elif name in GROUPS and Path(value).is_file():
            found |= _said({name: value}, Path())
        else:
            found[option_name(name)] = value
    return found


GROUPS = ("model", "data", "trainer")  # options that may name a file with all options below them


def _said(config: Any, beside: Path) -> dict[str, Any]:
    config = dict(config) if isinstance(config, dict) else {}
    for group in GROUPS:
        if isinstance(file := config.get(group), str) and (beside / file).is_file():
            config[group] = read_config(beside / file)
    return {option_name(name): value for name, value in flatten(config).items()}
