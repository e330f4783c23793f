"""Commands without a Trainer: the arguments of a function are the options, and what is left is handed on to `fit`."""

import inspect
import itertools
import json
import re
from collections.abc import Callable
from typing import Any, get_origin

from project.cli.parser import Parser
from project.errors import UserError
from project.runs.options import configs_first


def run_tool(name: str, tool: Callable[..., Any], args: list[str]) -> None:
    """Run the function of a command.

    Configs, options with a dot in their names, and what stands behind ` -- `, are handed on to `fit` by tools that
    train, which have a parameter `fit_options`.
    """
    from jsonargparse import auto_cli

    at = args.index("--") if "--" in args else len(args)
    # --short-side and --short_side are the same, as people type both.
    rest = [re.sub(r"^--[\w-]+", lambda name: f"--{name[0][2:].replace('-', '_')}", arg) for arg in args[:at]]
    own, of_fit = separate(configs_first(rest)[1:])
    of_fit += args[at + 1 :]
    wanted = inspect.signature(tool).parameters
    if (of_fit or at < len(args)) and "fit_options" not in wanted:
        unwanted = " ".join(of_fit) or "--"
        raise UserError(f"{name} trains nothing: it takes no options of train.py fit, such as {unwanted}")
    first = next(iter(wanted.values()), None)
    if first and get_origin(first.annotation) is list and first.default is first.empty:  # such as RUN RUN ...
        words = list(itertools.takewhile(lambda arg: not arg.startswith("-"), own))
        own = [json.dumps(words), *own[len(words) :]] if words else own
    given = {"fit_options": of_fit} if of_fit else {}
    program = f"train.py {name}"
    auto_cli(tool, args=own, set_defaults=given, parser_class=Parser, prog=program, allow_abbrev=False)


def separate(args: list[str]) -> tuple[list[str], list[str]]:
    """Return a tool's own options, and configs and options with a dot in their names, which are those of `fit`."""
    own: list[str] = []
    of_fit: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        if arg == "--config" or re.match(r"--\w+\.", arg):
            of_fit += [arg] if "=" in arg else [arg, next(remaining, "")]
        else:
            own.append(arg)
    return own, of_fit
