"""Where a run's settings come from: typed, from a config file, or left as they are by default."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from project.runs.options import flatten, option_name, option_pairs


class Setting(NamedTuple):
    """A dotted option that is not left as it is by default, its value in effect, and where that comes from."""

    name: str
    value: str
    origin: str  # a config file, or `typed`
    instead: str | None  # what the config file says, where something else was typed


def flat_options(config: dict[str, Any]) -> dict[str, str]:
    """All options of a config, as on the command line, with their values in words."""
    return {option_name(name): text(value) for name, value in flatten(config).items()}


def settings(config: dict[str, Any], starts: list[dict[str, Any]]) -> tuple[list[Setting], list[str]]:
    """What was chosen for a run, by its config.yaml and environment.yaml, and the config files of it that are gone."""
    in_effect = {option_name(name): value for name, value in flatten(config).items()}
    from_files: dict[str, tuple[Any, str]] = {}
    typed: dict[str, str] = {}
    gone = []
    for start in starts:
        words = shlex.split(start.get("command", ""))
        for option, given in option_pairs(words[words.index("fit") :] if "fit" in words else []):
            if option != "config":
                typed[option_name(option.removesuffix("+"))] = given
                continue
            try:
                said = yaml.safe_load((Path(start.get("folder", "")) / given).read_text())
                from_files |= {option_name(name): (what, given) for name, what in flatten(said).items()}
            except (OSError, ValueError, AttributeError, yaml.YAMLError):  # gone, or no config any more
                gone.append(given)
    found = []
    for name in dict.fromkeys([*typed, *from_files]):
        said, origin = from_files.get(name, (None, ""))
        value: Any = in_effect.get(name)
        if name in typed:
            value = typed[name] if value is None or isinstance(value, list) else value
            instead = None if said is None or text(said) == text(value) else text(said)
            found.append(Setting(name, text(value), "typed", instead))
        elif value is not None:  # else it belonged to a class that another one took the place of
            found.append(Setting(name, text(said if isinstance(value, list) else value), origin, None))
    return found, gone


def text(value: Any) -> str:
    """A value on one line, with classes by their short name."""
    if isinstance(value, dict) and "class_path" in value:
        arguments = ", ".join(f"{k}={text(v)}" for k, v in (value.get("init_args") or {}).items() if v is not None)
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "none"
    ours = __name__.partition(".")[0]
    if isinstance(value, str) and value.startswith(("torch.", f"{ours}.", "lightning.", "kornia.", "torchvision.")):
        return value.rpartition(".")[2]
    return f"{value:g}" if isinstance(value, float) else str(value)
