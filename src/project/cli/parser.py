"""The parser of every command: errors that a person can act on."""

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
"""Names that other tools or earlier versions use, and the option here."""
REMOVED = {
    "data_description": "this config is of an older version: take the line out",
    "poisson": "data.sampling poisson is now --data.sampler project.privacy.PoissonBatchSampler",
    "views": "it is now model.tta, with none, flip or flip_translate for one, mirror or mirror_shift",
    "sure_above": "it is now model.confidence_threshold",
    "project.privacy.PoissonBatches": "it is now project.privacy.PoissonBatchSampler",
    "project.explain.Watch": "it is now project.explain.ErrorAnalysis",
}
"""Keys, values and class paths of earlier versions, and what replaces them."""


class Parser(ArgumentParser):
    """The parser of every command; an error is one line, the last on the screen, with the likely spelling."""

    def format_help(self, *formatter: Any) -> str:
        """The help without lists of all classes that torch knows."""
        return re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", super().format_help(*formatter))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message as the last line and exit with code 2; a parser within another hands it on."""
        if not self.exit_on_error:
            super().error(message, ex)
        print(f"error: {self.explain(message)}", file=sys.stderr)
        raise SystemExit(2)

    def explain(self, message: str) -> str:
        """One line from jsonargparse's several, with the likely spelling of a name that it does not know."""
        typed = match[1] if (match := re.search(r"Given value: NestedArg\(key='([^']+)'", message)) else ""
        key, chosen, message = innermost(message)
        if match := re.search(r"unrecognized arguments: --([^\s=]+)", message):
            return f"unknown option --{match[1]}{did_you_mean(match[1], self.options())}"
        not_accepted = r"'([^']+)' is not (?:expected|accepted)|(?:Group '(.*)' does )?not accept [a-z ]+ '([^']+)'"
        if match := re.search(not_accepted, message):
            name = match[1] or ".".join(filter(None, (match[2], match[3])))
            if name in REMOVED:
                return f"unknown key {name}: {REMOVED[name]}"
            if name == typed and key in ("model", "data"):
                return f"unknown option --{key}.{name}{did_you_mean(f'{key}.{name}', self.options())}"
            options = {option: text.lstrip("-") for option, text in self.options().items()}
            likely = did_you_mean(name, _arguments(message, chosen) or options)
            return f"unknown key {name}{f' in {key}' if key and not typed else ''}{likely}"
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
            return f"{match[1]} wants a value, such as {match[1]} true where it is a switch"
        if match := re.search(r"(?:Given|Got) value: (.*)", message):
            if match[1] in REMOVED:
                return f"{key} {match[1]}: {REMOVED[match[1]]}"
            return f"{key}: expected {_wanted(message)}, got {match[1]!r}"
        return " ".join(message.split())

    def options(self) -> dict[str, str]:
        """Every option of this command; see `named`."""
        return named(self._actions)


def named(actions: Iterable[Any]) -> dict[str, str]:
    """Return options by their names, by the last part of that, and by what others call them."""
    names = [option.lstrip("-") for action in actions for option in action.option_strings]
    own = {name: f"--{name}" for name in names}
    others = {other: f"--{name}" for other, name in ALIASES.items() if name.partition(".")[0] in own}
    return {name.rpartition(".")[2]: f"--{name}" for name in reversed(names)} | own | others


def innermost(message: str) -> tuple[str, str, str]:
    """Return the whole key that a message is about, the class path it belongs to, and what is said without the rest."""
    keys: list[str] = []
    chosen = ""
    inside = r"^( *)- Problem with given class_path '([^']+)':\n((?:(?:\1 +.*)?\n)*(?:\1 +.*)?)"
    while True:
        problem = re.search(inside, message, re.MULTILINE)
        if match := re.search(r'Parser key "([^"]+)"', message[: problem.start()] if problem else message):
            keys.append(match[1])
        if problem is None:
            return ".".join(keys), chosen, message
        chosen, message = problem[2], textwrap.dedent(problem[3])


def _wanted(message: str) -> str:
    """What kinds of values an option takes."""
    values = re.findall(r"'([^']+)'", " ".join(re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)))
    kinds = [kind for kind in re.findall(r"Expected a <class '(\w+)'>", message) if kind != "NoneType"]
    if values:  # a kind that these values are of, or a list of these, goes without saying
        kinds = [kind for kind in kinds if re.search(rf"Subtypes: .*(<class '{kind}'|\b{kind}\[(?!typing))", message)]
    listed = f"{'one of ' if len(values) > 1 else ''}{', '.join(dict.fromkeys(values))}"
    return " or ".join(dict.fromkeys([listed] * bool(values) + kinds)) or "another type"


def _arguments(message: str, chosen: str) -> dict[str, str]:
    """Arguments of the class whose argument is not accepted; none where no class is named."""
    path = match[1] if (match := re.search(r"class_path='([\w.]+)'", message)) else chosen
    return {name: name for name in inspect.signature(import_object(path)).parameters} if path else {}


def _class_names() -> list[str]:
    """Names of the classes that can be given by their short name."""
    import lightning.pytorch.callbacks as callbacks
    import torch

    import project.datamodules as datamodules
    import project.modules as modules

    spaces = (callbacks, torch.optim, torch.optim.lr_scheduler, modules, datamodules)
    return [name for space in spaces for name in vars(space) if name[0].isupper()]
