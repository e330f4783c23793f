"""The commands that the documents show, and whether the command line takes them."""

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
from project.cli.commands import commands
from project.cli.parser import Parser
from project.cli.plan import Plan
from project.cli.tools import separate
from project.cli.train_parser import nulls_as_configs
from project.interface import import_object
from project.runs.job import Job
from project.runs.options import configs_first
from tests.conftest import REPOSITORY

DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "Dockerfile")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "configs").rglob("*.yaml")),
    *sorted((REPOSITORY / "scripts").iterdir()),
]
ASSIGNMENTS = r"(?:[A-Z_]+=(?:\$\([^)]*\)|\S+) +)*"
STARTS = re.compile(
    rf"{ASSIGNMENTS}(?:python |train\.py |pip |make [a-z]|sbatch |docker |openssl |source |scripts/\S+\.sh|--\w"
    r"|configs/\S+\.yaml --)"
)


@dataclass(frozen=True)
class Shown:
    """A command, or options alone, as a document shows it."""

    file: Path
    line: int
    text: str
    block: bool
    """Whether it stands in a block of its own, to be typed as it is; else within a sentence."""

    @property
    def place(self) -> str:
        """FILE:LINE."""
        return f"{self.file.relative_to(REPOSITORY)}:{self.line}"


def shown(file: Path) -> list[Shown]:
    """Every command in a document, and in the comments of any other file, in order."""
    return sorted(_shown(file), key=lambda command: command.line)


def _shown(file: Path) -> Iterator[Shown]:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".md":  # its comments alone; a block is set off by two spaces there
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
            yield Shown(file, number, words, block=True)
    yield from _in_sentences(file, "\n".join(prose))


def _in_sentences(file: Path, prose: str) -> Iterator[Shown]:
    """Commands in backticks; `train.py a` / `b --x` stands for both with --x, as a table has no room."""
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
            yield Shown(file, line, " ".join([text, *tail]) if others and bare and span is not last else text, False)


def words_of(command: str) -> list[str]:
    """The words of a command without variables before it; what stands in [brackets] may be typed and is kept."""
    plain = re.sub(rf"^{ASSIGNMENTS}", "", command)
    plain = re.sub(r"\[RUN \.\.\.\]| \.\.\.(?= )", "", plain)
    return shlex.split(re.sub(r"\[(--[^\]]*)\]", r"\1", plain))


STAND_INS = {
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
"""What stands for a file, a folder or a number in the documents, and what it is here."""

ALONG = {"--trainer.callbacks.every_n_epochs": ["--trainer.callbacks", "project.explain.ErrorAnalysis"]}
"""Options that a document shows without the one that they belong to."""


def standing_in(command: str) -> list[str]:
    """The words of a command, with what stands in for its DIR and the like."""
    words = [STAND_INS.get(word, word) for word in words_of(command)]
    return [*ALONG.get(words[0], []), *words]


class Accepted(Exception):  # noqa: N818 - not an error
    """The command line was read to its end; nothing was run."""


def stop(*_: Any, **__: Any) -> NoReturn:
    """In the place of what follows the parsing."""
    raise Accepted


def with_trainer() -> list[str]:
    """Names of the commands that have a Trainer."""
    first = {
        name: next(iter(inspect.signature(import_object(path)).parameters.values()))
        for name, (path, *_) in commands().items()
    }
    return [name for name, one in first.items() if isinstance(one.annotation, type) and issubclass(one.annotation, Job)]


@cache
def train_parser(command: str) -> Parser:
    """The parser of a command with a Trainer."""
    found: list[Any] = []
    grab = patch.object(training.CLI, "parse_arguments", lambda _, parser, __: (found.append(parser), stop()))
    with grab, patch.object(training, "make_plan", lambda *_: Plan([])), contextlib.suppress(Accepted):
        main([command])
    return found[0]  # type: ignore[no-any-return]


@cache
def option_names() -> set[str]:
    """Every option of every command and benchmark, those of the default classes among them."""
    tools = [import_object(path) for name, (path, *_) in commands().items() if name not in with_trainer()]
    names = {f"--{name}" for command in with_trainer() for name in train_parser(command).options()}
    for each in tools:
        parser = auto_cli(each, parser_class=Parser, return_parser=True)
        names |= {name for action in parser._actions for name in action.option_strings}
    benchmarks = (path.read_text() for path in (REPOSITORY / "benchmarks").glob("*.py"))
    return names.union(*(re.findall(r"""add_argument\("(--[\w-]+)""", text) for text in benchmarks))


def complaint(run: Callable[[], object]) -> str:
    """What the command line says against a command; empty where it would go on to run it."""
    screen = io.StringIO()
    with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        try:
            run()
        except Accepted:
            pass
        except SystemExit as end:
            if end.code:
                return (screen.getvalue().strip().splitlines() or [f"exit code {end.code}"])[-1]
    return ""


def _train(words: list[str]) -> str:
    return complaint(lambda: train_parser(words[0]).parse_args(nulls_as_configs(configs_first(words)[1:])))


def _command(words: list[str]) -> str:
    if words and words[0] not in commands():
        return f"no command named {words[0]}"
    if not words[1:]:  # the command, or all of them, are meant, not a use of it
        return ""
    if words[0] in with_trainer():
        return "" if words[1:] == ["--help"] else _train(words)
    with patch.object(Parser, "instantiate", stop):
        said = complaint(lambda: main(words))
    _, for_fit = separate(list(itertools.takewhile(lambda word: word != "--", words)))
    if "--" in words:
        for_fit += words[words.index("--") + 1 :]
    return said or (_train(["fit", *for_fit]) if for_fit else "")


def _benchmark(script: str, words: list[str]) -> str:
    read = argparse.ArgumentParser.parse_args
    with (
        patch.object(argparse.ArgumentParser, "parse_args", lambda self: stop(read(self))),
        patch.object(sys, "argv", [script, *words]),
        patch.object(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path]),
    ):
        return complaint(lambda: runpy.run_path(str(REPOSITORY / script), run_name="__main__"))


def _options(words: list[str]) -> str:
    """Options alone: every one must be one of some command, those with values must be taken by one together."""
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
        needed = [
            each
            for each in inspect.signature(import_object(commands()[name][0])).parameters.values()
            if each.default is each.empty
        ]
        given = ("FILE" if each.kind is not each.KEYWORD_ONLY else f"--{each.name}=FILE" for each in needed)
        if not _command([name, *given, *words]):
            return ""
    return _train(attempts[0])


def refused(words: list[str]) -> str:
    """Why a command would not be taken, in the words of the command line itself; empty if it would be.

    Args:
        words: The command, with files that exist in the place of DIR and the like.
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
        there = (REPOSITORY / words[script]).is_file()
        return _train(["fit", *words[script + 1 :]]) if there else f"no file {words[script]}"
    if first == "make":
        known = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        return "" if rest[0] in known else f"no target {rest[0]} in the Makefile"
    if first == "pip":
        known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        extras = re.findall(r"\w+", " ".join(re.findall(r"\.\[([\w,]+)\]", " ".join(rest))))
        return next((f"no extra named {name}" for name in extras if name not in known), "")
    return f"no way to check `{first}`: name it in ELSEWHERE"
