"""Argument parser of all commands, with error messages of one line."""

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from project.interface import import_object
from project.output import did_you_mean

ALIASES = {
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "highest": "max_lr",
    "learning_rate": "model.optimizer.lr",
    "limit": "max_concurrency",
    "lowest": "min_lr",
    "lr": "model.optimizer.lr",
    "smallest": "min_batch_size",
    "workers": "data.num_workers",
}
"""Option by the name that it has in other programs or had in earlier versions."""
REMOVED = {
    "labels": "renamed to table",
    "group_column": "renamed to columns.group",
    "balance_column": "renamed to columns.balance",
    "data_description": "written by an older version, remove it from the config",
    "poisson": "replaced by --data.sampler project.privacy.PoissonBatchSampler",
    "views": "renamed to model.tta, and its values one, mirror, mirror_shift to none, flip, flip_translate",
    "sure_above": "set by `train.py calibrate --target_accuracy` and saved in the checkpoint",
    "confidence_threshold": "set by `train.py calibrate --target_accuracy` and saved in the checkpoint",
    "project.privacy.PoissonBatches": "renamed to project.privacy.PoissonBatchSampler",
    "project.explain.Watch": "renamed to project.explain.ErrorAnalysis",
}
"""Options, values and class paths of earlier versions, and their replacements."""


class Parser(ArgumentParser):
    """Parser that reports an error as one line with a spelling suggestion."""

    def format_help(self, *formatter: Any) -> str:
        """Return the help without jsonargparse's lists of known subclasses."""
        return re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", super().format_help(*formatter))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message as one line and exit with code 2; a nested parser raises instead."""
        if not self.exit_on_error:
            super().error(message, ex)
        print(f"error: {self.simplify(message)}", file=sys.stderr)
        raise SystemExit(2)

    def simplify(self, message: str) -> str:
        """Return one line for jsonargparse's multi-line message, with a suggestion for an unknown name."""
        nested_key = match[1] if (match := re.search(r"Given value: NestedArg\(key='([^']+)'", message)) else ""
        key, class_path, message = innermost(message)
        if match := re.search(r"unrecognized arguments: --([^\s=]+)", message):
            if (name := match[1].rpartition(".")[2]) in REMOVED:
                return f"unknown option --{match[1]}: {REMOVED[name]}"
            return f"unknown option --{match[1]}{did_you_mean(match[1], self.options())}"
        not_accepted = r"'([^']+)' is not (?:expected|accepted)|(?:Group '(.*)' does )?not accept [a-z ]+ '([^']+)'"
        if match := re.search(not_accepted, message):
            name = match[1] or ".".join(filter(None, (match[2], match[3])))
            if name in REMOVED:
                option = f"option --{key}.{name}" if name == nested_key else f"key {name}"
                return f"unknown {option}: {REMOVED[name]}"
            if name == nested_key and key in ("model", "data"):
                return f"unknown option --{key}.{name}{did_you_mean(f'{key}.{name}', self.options())}"
            keys = {option: text.lstrip("-") for option, text in self.options().items()}
            suggestion = did_you_mean(name, _arguments(message, class_path) or keys)
            return f"unknown key {name}{f' in {key}' if key and not nested_key else ''}{suggestion}"
        if match := re.search(r"Expected a dot import path string: (\S+)", message):
            return f"{key}: no class named {match[1]}{did_you_mean(match[1], {name: name for name in _class_names()})}"
        if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
            names = {name: name for name in dir(importlib.import_module(match[1]))}
            if (path := f"{match[1]}.{match[2]}") in REMOVED:
                return f"{key}: no class {path}: {REMOVED[path]}"
            return f"{key}: {match[1]} has no {match[2]}{did_you_mean(match[2], names)}"
        if match := re.search(r"(Multiple subclasses with name .*)", message):
            return f"{key}: {match[1]}"
        if match := re.search(r"File does not exist: '(.*)'", message):
            return f"no such {key or 'file'}: {match[1]}"
        if match := re.search(r"argument (--[\w.]+): expected one argument", message):
            return f"{match[1]} expects a value, e.g. {match[1]} true for a boolean option"
        if match := re.search(
            r"Parser key \"(\w+)\":\s+(Expected a .*?)\. Got value: (?!Namespace)(.*?)\. Got", message
        ):
            return f"{key}.{match[1]}: expected {_expected(match[2])}, got {match[3]!r}"
        if match := re.search(r"arguments are required: (\w+)", message):
            return f"{key} needs {match[1]}: add --{key}.{match[1]}"
        if match := re.search(r"(?:Given|Got) value: (.*)", message):
            if match[1] in REMOVED:
                return f"{key} {match[1]}: {REMOVED[match[1]]}"
            named = re.search(r"class_path='([\w.]+)'|^'?([A-Za-z_]\w*(?:\.\w+)+)'?$", match[1])
            if named and (error := _import_error(path := named[1] or named[2])):
                return f"{key}: cannot import {path}: {error}"
            return f"{key}: expected {_expected(message)}, got {match[1]!r}"
        return " ".join(message.split())

    def options(self) -> dict[str, str]:
        """Return the options of this command by all names that a user may type; see `option_spellings`."""
        return option_spellings(self._actions)


def _import_error(path: str) -> str:
    """Return why a class path cannot be imported; empty if it can."""
    try:
        import_object(path)
    except Exception as error:  # whatever the user's module raises
        return f"{type(error).__name__}: {error}"
    return ""


def option_spellings(actions: Iterable[Any]) -> dict[str, str]:
    """Return options by their full name, by its last part, and by their aliases."""
    names = [option.lstrip("-") for action in actions for option in action.option_strings]
    full = {name: f"--{name}" for name in names}
    aliases = {alias: f"--{name}" for alias, name in ALIASES.items() if name.partition(".")[0] in full}
    return {name.rpartition(".")[2]: f"--{name}" for name in reversed(names)} | full | aliases


def innermost(message: str) -> tuple[str, str, str]:
    """Return the full key, the class path and the innermost part of jsonargparse's nested message."""
    keys: list[str] = []
    class_path = ""
    nested = r"^( *)- Problem with given class_path '([^']+)':\n((?:(?:\1 +.*)?\n)*(?:\1 +.*)?)"
    while True:
        problem = re.search(nested, message, re.MULTILINE)
        if match := re.search(r'Parser key "([^"]+)"', message[: problem.start()] if problem else message):
            keys.append(match[1])
        if problem is None:
            return ".".join(keys), class_path, message
        class_path, message = problem[2], textwrap.dedent(problem[3])


def _expected(message: str) -> str:
    """Return the values and types that an option accepts."""
    values = re.findall(r"'([^']+)'", " ".join(re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)))
    kinds = [kind for kind in re.findall(r"Expected a <class '(\w+)'>", message) if kind != "NoneType"]
    if values:  # omit the type of these values, or of a list of them
        kinds = [kind for kind in kinds if re.search(rf"Subtypes: .*(<class '{kind}'|\b{kind}\[(?!typing))", message)]
    choices = f"{'one of ' if len(values) > 1 else ''}{', '.join(dict.fromkeys(values))}"
    return " or ".join(dict.fromkeys([choices] * bool(values) + kinds)) or "another type"


def _arguments(message: str, class_path: str) -> dict[str, str]:
    """Return the parameters of the class that the message is about, or an empty dictionary if it names no class."""
    path = match[1] if (match := re.search(r"class_path='([\w.]+)'", message)) else class_path
    return {name: name for name in inspect.signature(import_object(path)).parameters} if path else {}


def _class_names() -> list[str]:
    """Return the names of classes that can be given without a module path."""
    import lightning.pytorch.callbacks as callbacks
    import torch

    import project.datamodules as datamodules
    import project.modules as modules

    namespaces = (callbacks, torch.optim, torch.optim.lr_scheduler, modules, datamodules)
    return [name for namespace in namespaces for name in vars(namespace) if name[0].isupper()]
