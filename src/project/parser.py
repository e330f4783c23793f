"""Reading the command line: order of configs, appended callbacks, and errors that a person can act on."""

import difflib
import importlib
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser

from project.errors import UserError

OTHER_NAMES = {
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "learning_rate": "model.optimizer.lr",
    "lr": "model.optimizer.lr",
    "workers": "data.num_workers",
}
"""What people type who know other tools, and the option it is here."""


def in_order(args: list[str]) -> list[str]:
    """Arguments with every config moved before the options, so that a config never beats the command line.

    `--trainer.callbacks X` becomes `--trainer.callbacks+ X`: callbacks given on the command line append.
    """
    configs: list[str] = []
    rest: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        if arg in ("-c", "--config"):
            configs += ["--config", next(remaining, "")]
        elif arg.startswith("--config="):
            configs += ["--config", arg.removeprefix("--config=")]
        else:
            rest.append(re.sub(r"^--trainer\.callbacks(?=$|=)", "--trainer.callbacks+", arg))
    return rest[:1] + configs + rest[1:]


def without_empty_configs(args: list[str]) -> list[str]:
    """Arguments in order without the configs that hold no option, as where all lines are comments.

    Raises:
        UserError: a config is not YAML.
    """
    kept: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        pair = [arg, next(remaining, "")] if arg == "--config" else [arg]
        kept += [] if arg == "--config" and _says_nothing(pair[1]) else pair
    return kept


def _says_nothing(config: str) -> bool:
    if not Path(config).is_file():
        return False  # the parser's to tell
    try:
        return yaml.safe_load(Path(config).read_text(encoding="utf-8")) is None
    except UnicodeDecodeError as error:
        raise UserError(f"{config} is no text file") from error
    except yaml.reader.ReaderError as error:
        raise UserError(f"{config}: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        where = f", line {at.line + 1}, column {at.column + 1}" if at else ""
        raise UserError(
            f"{config}{where}: {error.problem}; see whether a colon, a quote or an indent is amiss"
        ) from error


def named(args: list[str], names: Collection[str]) -> list[str]:
    """The command and those of its options that have one of these names, with their values."""
    kept = args[:1]
    for arg, value in zip(args[1:], [*args[2:], ""], strict=True):
        if arg.partition("=")[0] in names:
            kept += [arg] if "=" in arg else [arg, value]
    return kept


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys; None is left out."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat


class Parser(ArgumentParser):
    """The parser of every command; an error is one line, the last on the screen, with the likely spelling."""

    def format_help(self, *formatter: Any) -> str:
        """The help without what nobody types: lists of all classes that torch knows, and the data description."""
        text = re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", super().format_help(*formatter))
        text = re.sub(r"\n +\[--model\.data_description DATA_DESCRIPTION\]", "", text)
        return re.sub(r"\n  --model\.data_description[^\n]*(?:\n {6,}[^\n]*)*", "", text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message as the last line and exit with code 2."""
        parser: Parser = getattr(ex, "subcommand_parser", None) or self
        print(f"error: {parser.explain(message)}", file=sys.stderr)
        raise SystemExit(2)

    def explain(self, message: str) -> str:
        """One line from jsonargparse's several, with the likely spelling of a name that it does not know."""
        key = match[1] if (match := re.search(r'Parser key "([^"]+)"', message)) else ""
        if match := re.search(r"unrecognized arguments: --([^\s=]+)", message):
            return f"unknown option --{match[1]}{self.hint(match[1], self._options())}"
        if match := re.search(
            r"'([^']+)' is not (?:expected|accepted)|not accept (?:option|key|nested key) '([^']+)'", message
        ):
            name = match[1] or match[2]
            options = {option: text.lstrip("-") for option, text in self._options().items()}
            return f"unknown key {name}{f' in {key}' if key else ''}{self.hint(name, options)}"
        if match := re.search(r"Expected a dot import path string: (\S+)", message):
            return f"{key}: no class named {match[1]}{self.hint(match[1], {name: name for name in _class_names()})}"
        if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
            names = {name: name for name in dir(importlib.import_module(match[1]))}
            return f"{key}: {match[1]} has no {match[2]}{self.hint(match[2], names)}"
        if match := re.search(r"(Multiple subclasses with name .*)", message):
            return f"{key}: {match[1]}"
        if match := re.search(r"argument subcommand: invalid choice: '([^']+)' \(choose from (.*)\)", message):
            known = re.findall(r"'([^']+)'", match[2])
            return f"no command {match[1]} among {', '.join(known)}{self.hint(match[1], {n: n for n in known})}"
        if 'expected "subcommand"' in message:
            commands = next(action.choices or () for action in self._actions if action.dest == "subcommand")
            return f"say first what to do, then the options: train.py {', '.join(commands)}"
        if match := re.search(r"File does not exist: '(.*)'", message):
            return f"no such {key or 'file'}: {match[1]}"
        if match := re.search(r"argument (--[\w.]+): expected one argument", message):
            return f"{match[1]} wants a value, such as {match[1]} true where it is a switch"
        if match := re.search(r"(?:Given|Got) value: (.*)", message):
            values = re.findall(r"'([^']+)'", " ".join(re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)))
            kinds = [kind for kind in re.findall(r"Expected a <class '(\w+)'>", message) if kind != "NoneType"]
            if values:  # a kind that these values are of, or a list of these, goes without saying
                kinds = [
                    kind for kind in kinds if re.search(rf"Subtypes: .*(<class '{kind}'|\b{kind}\[(?!typing))", message)
                ]
            listed = f"{'one of ' if len(values) > 1 else ''}{', '.join(dict.fromkeys(values))}"
            wanted = " or ".join(dict.fromkeys([listed] * bool(values) + kinds)) or "another type"
            return f"{key}: expected {wanted}, got {match[1]!r}"
        return " ".join(message.split())

    def _options(self) -> dict[str, str]:
        """Every option of this command by its name, by the last part of that, and by what others call it."""
        names = [option.lstrip("-") for action in self._actions for option in action.option_strings]
        own = {name: f"--{name}" for name in names}
        return (
            {name.rpartition(".")[2]: f"--{name}" for name in reversed(names)}
            | own
            | {other: f"--{name}" for other, name in OTHER_NAMES.items() if name.partition(".")[0] in own}
        )

    @staticmethod
    def hint(name: str, known: Mapping[str, str]) -> str:
        """The likely spelling of a name, of those that are known; empty if none is close."""
        last = name.rpartition(".")[2]
        if last in known:
            return f"; did you mean {known[last]}?"
        for wanted in (name, last):
            if close := difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.7):
                return f"; did you mean {known[close[0]]}?"
        return ""


def _class_names() -> list[str]:
    """Names of the classes that can be given by their short name."""
    import lightning.pytorch.callbacks as callbacks
    import torch

    import project.datamodules as datamodules
    import project.modules as modules

    spaces = (callbacks, torch.optim, torch.optim.lr_scheduler, modules, datamodules)
    return [name for space in spaces for name in vars(space) if name[0].isupper()]
