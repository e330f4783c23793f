"""Options of a run that were set on the command line or in a config file."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from project.runs.options import flatten, option_name, option_pairs


class Setting(NamedTuple):
    """An option that was set explicitly, its value in effect, and its source."""

    name: str
    value: str
    origin: str  # a config file, or `command line`
    overrides: str | None  # value in the config file, if the command line differs


def flat_options(config: dict[str, Any]) -> dict[str, str]:
    """Return all options of a config by their dotted name, with their values as text."""
    return {option_name(name): text(value) for name, value in flatten(config).items()}


def settings(config: dict[str, Any], starts: list[dict[str, Any]]) -> tuple[list[Setting], list[str]]:
    """Return the explicitly set options of a run, and the config files that could not be read.

    Args:
        config: config.yaml of the run.
        starts: Entries of environment.yaml, one for each start or resume of the run.
    """
    in_effect = {option_name(name): value for name, value in flatten(config).items()}
    from_files: dict[str, tuple[Any, str]] = {}
    command_line: dict[str, str] = {}
    missing = []
    for start in starts:
        args = shlex.split(start.get("command", ""))
        for option, value in option_pairs(args[args.index("fit") :] if "fit" in args else []):
            if option != "config":
                command_line[option_name(option.removesuffix("+"))] = value
                continue
            try:
                content = yaml.safe_load((Path(start.get("folder", "")) / value).read_text())
                from_files |= {option_name(name): (each, value) for name, each in flatten(content).items()}
            except (OSError, ValueError, AttributeError, yaml.YAMLError):  # missing, or not a config
                missing.append(value)
    explicit = []
    for name in dict.fromkeys([*command_line, *from_files]):
        in_file, origin = from_files.get(name, (None, ""))
        current: Any = in_effect.get(name)
        if name in command_line:
            current = command_line[name] if current is None or isinstance(current, list) else current
            overrides = None if in_file is None or text(in_file) == text(current) else text(in_file)
            explicit.append(Setting(name, text(current), "command line", overrides))
        elif current is not None:  # None: an option of a class that was replaced by another one
            explicit.append(Setting(name, text(in_file if isinstance(current, list) else current), origin, None))
    return explicit, missing


def text(value: Any) -> str:
    """Return a value on one line, with classes by their short name."""
    if isinstance(value, dict) and "class_path" in value:
        arguments = ", ".join(f"{k}={text(v)}" for k, v in (value.get("init_args") or {}).items() if v is not None)
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "none"
    ours = __name__.partition(".")[0]
    if isinstance(value, str) and value.startswith(("torch.", f"{ours}.", "lightning.", "kornia.", "torchvision.")):
        return value.rpartition(".")[2]
    return f"{value:g}" if isinstance(value, float) else str(value)
