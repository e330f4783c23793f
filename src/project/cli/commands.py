"""Registry of commands: those of the core, and those that packages declare in their `__init__`.

A package may declare, with dotted paths instead of imports:

* `COMMANDS`: name -> (function, group, summary), and optionally the models that the command supports, e.g. "images with
  classes, labels or values". By default a command supports every model.
* `CALLBACKS`: classes of callbacks that are added to every run.
* `OPTIONS`: name -> (function, help), an option of every command with a Trainer. The function is called with the file
  and the option's value before a model file is loaded.
* `SHORT_OPTIONS`: name -> option of commands with a Trainer that it stands for.
"""

import importlib
import pkgutil
from functools import cache
from typing import Any

import project
from project.interface import import_object

CORE_PACKAGES = ("callbacks", "cli", "datamodules", "images", "interface", "modules", "runs", "tables")
Command = tuple[str, ...]
GROUPS = {
    "train": "Training",
    "evaluate": "Evaluation",
    "explain": "Explanation",
    "tune": "Hyperparameter tuning",
    "deploy": "Deployment",
    "data": "Data",
    "security": "Security",
}
"""Headings of the command groups, in the order of the overview."""
CORE: dict[str, Command] = {
    "fit": ("project.cli.loops.fit", "train", "train a model and test its best checkpoint, or resume a run"),
    "validate": ("project.cli.loops.validate", "evaluate", "evaluate a trained model on the val split"),
    "test": ("project.cli.loops.test", "evaluate", "evaluate a trained model on the test split"),
    "predict": ("project.cli.loops.predict", "evaluate", "predict the classes of images or texts"),
    "check_data": (
        "project.datamodules.images.check.check_data",
        "data",
        "find unreadable files, duplicates and data leakage",
    ),
    "shard": ("project.datamodules.images.shards.shard", "data", "write a dataset as shards, a few large files"),
}


@cache
def packages() -> list[Any]:
    """Return the optional packages that are present."""
    names = {item.name for item in pkgutil.iter_modules(project.__path__) if item.ispkg}.difference(CORE_PACKAGES)
    return [importlib.import_module(f"{project.__name__}.{name}") for name in sorted(names)]


@cache
def commands() -> dict[str, Command]:
    """Return all commands by name, sorted by group."""
    declared = dict(CORE)
    for package in packages():
        declared |= getattr(package, "COMMANDS", {})
    groups = [*GROUPS, *(group for _, group, *_ in declared.values())]  # packages may add groups
    return dict(sorted(declared.items(), key=lambda item: groups.index(item[1][1])))


def callbacks() -> list[Any]:
    """Create the callbacks that packages add to every run."""
    return [import_object(path)() for package in packages() for path in getattr(package, "CALLBACKS", ())]


def options() -> dict[str, tuple[str, str]]:
    """Return the options that packages add to commands with a Trainer, as name -> (function, help)."""
    return {name: option for package in packages() for name, option in getattr(package, "OPTIONS", {}).items()}


def short_options() -> dict[str, str]:
    """Return the short names of options that packages declare, as name -> option."""
    return {name: option for package in packages() for name, option in getattr(package, "SHORT_OPTIONS", {}).items()}


def overview() -> str:
    """Return the help of `train.py`: usage, and one line per command."""
    lines = ["usage: train.py COMMAND [options]"]
    current = None
    for name, (_, group, summary, *_) in commands().items():
        if group != current:
            lines += ["", f"{GROUPS.get(group, group.capitalize())}:"]
            current = group
        lines.append(f"  {name:<18}{summary}")
    return "\n".join([*lines, "", "Options of a command: train.py COMMAND --help"])
