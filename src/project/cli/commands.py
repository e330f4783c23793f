"""The list of commands: those of the core, and what each package declares in its `__init__`, as strings only.

A package may declare `COMMANDS`, name -> (path of a function, group, one line) and, for those that do not serve every
model, what inputs with what targets they serve; `CALLBACKS`, class paths of callbacks that are added to every run;
`OPTIONS`, name -> (path of a function (file, value), help): an option of all commands with a Trainer, whose function
checks every model file before it is read.
"""

import importlib
import pkgutil
from functools import cache
from typing import Any

import project
from project.interface import import_object

CORE_PACKAGES = ("callbacks", "cli", "datamodules", "modules", "runs")
Declared = tuple[str, ...]
GROUPS = ("train", "evaluate", "explain", "tune", "deploy", "data", "security")
CORE: dict[str, Declared] = {
    "fit": ("project.cli.loops.fit", "train", "train a network and test its best checkpoint; continue a run"),
    "validate": ("project.cli.loops.validate", "evaluate", "evaluate a trained model on the val split"),
    "test": ("project.cli.loops.test", "evaluate", "evaluate a trained model on the test split"),
    "predict": ("project.cli.loops.predict", "evaluate", "predict the class of each image of a folder, or of one"),
    "check_data": ("project.datamodules.images.check.check_data", "data", "look for what would spoil a result"),
    "shard": ("project.datamodules.images.shards.shard", "data", "write images as a few large files"),
}


@cache
def packages() -> list[Any]:
    """Return the packages of the project that declare something; those that were deleted are not missed."""
    names = {item.name for item in pkgutil.iter_modules(project.__path__) if item.ispkg}.difference(CORE_PACKAGES)
    return [importlib.import_module(f"{project.__name__}.{name}") for name in sorted(names)]


@cache
def commands() -> dict[str, Declared]:
    """Return all commands by name, in the order of their groups."""
    found = dict(CORE)
    for package in packages():
        found |= getattr(package, "COMMANDS", {})
    groups = [*GROUPS, *(group for _, group, *_ in found.values())]  # a package may have a group of its own
    return dict(sorted(found.items(), key=lambda item: groups.index(item[1][1])))


def callbacks() -> list[Any]:
    """Return a callback of each class that packages add to every run."""
    return [import_object(path)() for package in packages() for path in getattr(package, "CALLBACKS", ())]


def options() -> dict[str, tuple[str, str]]:
    """Return the options that packages add to commands with a Trainer."""
    return {name: option for package in packages() for name, option in getattr(package, "OPTIONS", {}).items()}


def overview() -> str:
    """Return the list of commands, by group, a line each."""
    lines = ["usage: train.py COMMAND [options]        options: train.py COMMAND --help"]
    for group in dict.fromkeys(group for _, group, *_ in commands().values()):
        lines += ["", group, *(f"  {name:<18}{line}" for name, (_, at, line, *_) in commands().items() if at == group)]
    return "\n".join(lines)
