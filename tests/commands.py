"""Find the commands in the documentation, and check them against the parsers without running them."""

import argparse
import contextlib
import inspect
import io
import itertools
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from jsonargparse import auto_cli

from project.cli import main, training
from project.cli.commands import commands, short_options
from project.cli.parser import Parser
from project.cli.plan import Plan
from project.cli.tools import split_fit_options
from project.cli.train_parser import nulls_as_configs
from project.interface import import_object
from project.runs.job import Job
from project.runs.options import configs_first, peek_options
from tests.conftest import REPOSITORY

DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "Dockerfile")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "configs").rglob("*.yaml")),
    *sorted((REPOSITORY / "scripts").iterdir()),
]
TEXTS = "project.datamodules.texts.TextDataModule"
ASSIGNMENTS = r"(?:[A-Z_]+=(?:\$\([^)]*\)|\S+) +)*"
STARTS = re.compile(
    rf"{ASSIGNMENTS}(?:python |train\.py |pip |make [a-z]|sbatch |docker |openssl |source |scripts/\S+\.sh|--\w"
    r"|configs/\S+\.yaml --)"
)


@dataclass(frozen=True)
class DocumentedCommand:
    """A command, or options without a command, in a document."""

    file: Path
    line: int
    text: str
    block: bool
    """True for a code block, False for inline code."""

    @property
    def location(self) -> str:
        """FILE:LINE of the command."""
        return f"{self.file.relative_to(REPOSITORY)}:{self.line}"


def find_commands(file: Path) -> list[DocumentedCommand]:
    """Return the commands of a Markdown document, or of the comments of any other file, in order."""
    return sorted(_find_commands(file), key=lambda command: command.line)


def _find_commands(file: Path) -> Iterator[DocumentedCommand]:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".md":  # only comments; code blocks are indented by two spaces
        lines = (line[1:].removeprefix(" ") if line.startswith("#") else "" for line in text.split("\n"))
        text = "\n".join(f"  {line}" if line.startswith("  ") else line for line in lines)
    prose, fence, waiting = [], None, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if match := re.match(r"\s*```(\w*)", line):
            fence = None if fence is not None else match[1]
            prose.append("")
            continue
        if fence is None and not line.startswith("    "):
            prose.append(line)
            continue
        prose.append("")
        if fence in ("python", "yaml"):
            continue
        words = re.split(r"\s{2,}#|\s#\s", waiting + line.strip())[0].strip()
        words = re.sub(r"^\(umask 077; (.*)\)$", r"\1", words)
        waiting = words.removesuffix("\\") if words.endswith("\\") else ""
        if not waiting and STARTS.match(words):
            yield DocumentedCommand(file, number, words, block=True)
    yield from _in_sentences(file, "\n".join(prose))


def _in_sentences(file: Path, prose: str) -> Iterator[DocumentedCommand]:
    """Yield inline commands; `train.py a` / `b --x`, as in tables, means both commands with --x."""
    for match in re.finditer(r"`[^`]+`(?: / `[^`]+`)*", prose):
        first, *others = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", match[0]))
        if not STARTS.match(first):
            continue
        line = prose.count("\n", 0, match.start()) + 1
        *spans, last = [first, *others]
        words = first.split()
        head = words[: 3 if words[0] == "python" else 1]  # python -m project, train.py
        tail = last.split()[1:] if others else []
        head = head[:1] if head[0].endswith(".py") else head
        for span in [*spans, last]:
            text = span if span is first else " ".join([*head, span])
            bare = len(text.split()) <= len(head) + 1
            yield DocumentedCommand(
                file, line, " ".join([text, *tail]) if others and bare and span is not last else text, False
            )


def split_words(command: str) -> list[str]:
    """Split a command into arguments, without leading variable assignments and including [optional] parts."""
    plain = re.sub(rf"^{ASSIGNMENTS}", "", command)
    plain = re.sub(r"\[RUN \.\.\.\]| \.\.\.(?= )", "", plain)
    return shlex.split(re.sub(r"\[(--[^\]]*)\]", r"\1", plain))


PLACEHOLDERS = {
    "FOLDER_OR_IMAGE": "photos",
    "FOLDER": "photos",
    "DIR": "photos",
    "COMMAND": "fit",
    "TOOL": "sweep",
    "A": "configs/convnet.yaml",
    "B": "configs/trainer/cpu.yaml",
    "C": "configs/convnet.yaml",
    "S": "configs/sweep/convnet.yaml",
    "FILE": "best.ckpt",
    "RUN": "logs/convnet/version_0",
    "X": "camera",
    "N": "1",
    "M": "1",
}
"""Placeholders for files, folders and numbers in the documentation, and the values to test with."""

REQUIRED = {"--trainer.callbacks.every_n_epochs": ["--trainer.callbacks", "project.explain.ErrorAnalysis"]}
"""Options that a document shows without the option that they require."""


def fill_placeholders(command: str) -> list[str]:
    """Split a command into arguments, with placeholders such as DIR replaced."""
    words = [PLACEHOLDERS.get(word, word) for word in split_words(command)]
    return [*REQUIRED.get(words[0], []), *words]


class Accepted(Exception):  # noqa: N818 - not an error
    """The command line was parsed without an error."""


def stop(*_: Any, **__: Any) -> NoReturn:
    """Replacement for what follows the parsing."""
    raise Accepted


def with_trainer() -> list[str]:
    """Return the names of the commands with a Trainer."""
    first = {
        name: next(iter(inspect.signature(import_object(path)).parameters.values()))
        for name, (path, *_) in commands().items()
    }
    return [name for name, one in first.items() if isinstance(one.annotation, type) and issubclass(one.annotation, Job)]


@cache
def train_parser(command: str, data: str = "") -> Parser:
    """Return the parser of a command with a Trainer, for a class of datamodule; by default that of images."""
    parsers: list[Any] = []
    given = {"data": data} if data else {}
    grab = patch.object(training.CLI, "parse_arguments", lambda _, parser, __: (parsers.append(parser), stop()))
    with grab, patch.object(training, "make_plan", lambda *_: Plan([], given)), contextlib.suppress(Accepted):
        main([command])
    return parsers[0]  # type: ignore[no-any-return]


@cache
def option_names() -> set[str]:
    """Return all options of all commands and benchmarks, including those of the default classes."""
    functions = [import_object(path) for name, (path, *_) in commands().items() if name not in with_trainer()]
    names = {f"--{name}" for command in with_trainer() for name in train_parser(command).options()}
    for function in functions:
        parser = auto_cli(function, parser_class=Parser, return_parser=True)
        names |= {name for action in parser._actions for name in action.option_strings}
    benchmarks = (path.read_text() for path in (REPOSITORY / "benchmarks").glob("*.py"))
    return names.union(*(re.findall(r"""add_argument\("(--[\w-]+)""", text) for text in benchmarks))


def error_message(run: Callable[[], object]) -> str:
    """Return the last line that a command prints to stderr on a parsing error, else an empty string."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        try:
            run()
        except Accepted:
            pass
        except SystemExit as end:
            if end.code:
                return (stderr.getvalue().strip().splitlines() or [f"exit code {end.code}"])[-1]
    return ""


def _train(words: list[str]) -> str:
    short = {f"--{name}": f"--{option}" for name, option in short_options().items()}
    args = nulls_as_configs([short.get(word, word) for word in configs_first(words)[1:]])
    given = peek_options(args).get("data")
    classes = [str(given)] if given else ["", TEXTS][: 1 if words[0] == "fit" else 2]  # that of the checkpoint
    errors = [error_message(lambda data=data: train_parser(words[0], data).parse_args(args)) for data in classes]  # type: ignore[misc]
    return "" if "" in errors else errors[0]


def _command(words: list[str]) -> str:
    if words and words[0] not in commands():
        return f"no command named {words[0]}"
    if not words[1:]:  # a mention of the command, not a call
        return ""
    if words[0] in with_trainer():
        return "" if words[1:] == ["--help"] else _train(words)
    with patch.object(Parser, "instantiate", stop):
        error = error_message(lambda: main(words))
    parameters = inspect.signature(import_object(commands()[words[0]][0])).parameters
    _, fit_args = split_fit_options(list(itertools.takewhile(lambda word: word != "--", words)), parameters)
    if "--" in words:
        fit_args += words[words.index("--") + 1 :]
    return error or (_train(["fit", *fit_args]) if fit_args else "")


def _benchmark(script: str, words: list[str]) -> str:
    read = argparse.ArgumentParser.parse_args
    with (
        patch.object(argparse.ArgumentParser, "parse_args", lambda self: stop(read(self))),
        patch.object(sys, "argv", [script, *words]),
        patch.object(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path]),
    ):
        return error_message(lambda: runpy.run_path(str(REPOSITORY / script), run_name="__main__"))


def _options(words: list[str]) -> str:
    """Check options without a command: each must exist, and one command must accept all options with values."""
    bare = [option for option, value in itertools.pairwise([*words, "--"]) if option[:2] == value[:2] == "--"]
    for option in bare:
        if option.replace("-", "_").replace("__", "--", 1) not in option_names() | {"--help"}:
            words = [*words[: words.index(option) + 1], "FILE", *words[words.index(option) + 1 :]]
    if not set(words) - set(bare):
        return ""
    attempts = [["fit", *words], ["fit", "--config", "configs/transfer.yaml", *words]]
    attempts += [[command, *words] for command in with_trainer()]
    for attempt in attempts:
        if not _train(attempt):
            return ""
    for name in set(commands()) - set(with_trainer()):
        required = [
            each
            for each in inspect.signature(import_object(commands()[name][0])).parameters.values()
            if each.default is each.empty
        ]
        given = ("FILE" if each.kind is not each.KEYWORD_ONLY else f"--{each.name}=FILE" for each in required)
        if not _command([name, *given, *words]):
            return ""
    return _train(attempts[0])


def find_error(words: list[str]) -> str:
    """Return the error message of a command, or an empty string if it is valid.

    Args:
        words: The command as arguments, without placeholders.
    """
    first, *rest = words
    if first.startswith("configs/"):  # CONFIG --options, short for train.py fit
        return _train(["fit", "--config", *words])
    if first.startswith("--"):
        return _options(words)
    if first == "python" and rest[0] == "-m":
        return _command(rest[2:])
    if first == "python" and rest[0].startswith("scripts/"):
        return "" if (REPOSITORY / rest[0]).is_file() else f"no file {rest[0]}"
    if first == "python" and rest[0].startswith("benchmarks/"):
        return _benchmark(rest[0], rest[1:])
    if first in ("python", "train.py"):
        return _command(words[words.index("train.py") + 1 :])
    if first == "sbatch" or first.startswith("scripts/"):
        script = next(number for number, word in enumerate(words) if word.startswith("scripts/"))
        exists = (REPOSITORY / words[script]).is_file()
        return _train(["fit", *words[script + 1 :]]) if exists else f"no file {words[script]}"
    if first == "make":
        known = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        return "" if rest[0] in known else f"no target {rest[0]} in the Makefile"
    if first == "pip":
        known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        extras = re.findall(r"\w+", " ".join(re.findall(r"\.\[([\w,]+)\]", " ".join(rest))))
        return next((f"no extra named {name}" for name in extras if name not in known), "")
    return f"`{first}` cannot be checked: add it to ELSEWHERE"
