"""Commands without a Trainer: the parameters of a function are the options."""

import inspect
import itertools
import json
import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, get_origin

from project.cli.parser import Parser
from project.errors import UserError
from project.runs.options import configs_first


def run_function(name: str, function: Callable[..., Any], args: list[str]) -> None:
    """Parse the options of a command and call its function.

    If the function has a parameter `fit_options`, it receives the arguments of `train.py fit`: configs, options with a
    dot in their names, and all arguments after ` -- `.
    """
    from jsonargparse import auto_cli

    end = args.index("--") if "--" in args else len(args)
    # Accept --short-side for --short_side.
    args_before = [re.sub(r"^--[\w-]+", lambda option: f"--{option[0][2:].replace('-', '_')}", a) for a in args[:end]]
    parameters = inspect.signature(function).parameters
    own_args, fit_args = split_fit_options(configs_first(args_before)[1:], parameters)
    fit_args += args[end + 1 :]
    if (fit_args or end < len(args)) and "fit_options" not in parameters:
        raise UserError(f"{name} does not train: it takes no options of train.py fit, got {' '.join(fit_args) or '--'}")
    first = next(iter(parameters.values()), None)
    if first and get_origin(first.annotation) is list and first.default is first.empty:  # positional, e.g. RUN RUN ...
        values = list(itertools.takewhile(lambda arg: not arg.startswith("-"), own_args))
        own_args = [json.dumps(values), *own_args[len(values) :]] if values else own_args
    else:
        own_args = name_optional_path(own_args, parameters)
    defaults = {"fit_options": fit_args} if fit_args else {}
    program = f"train.py {name}"
    auto_cli(function, args=own_args, set_defaults=defaults, parser_class=Parser, prog=program, allow_abbrev=False)


def name_optional_path(args: list[str], parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Insert the name of the first optional parameter if it is a path that follows the required ones without it."""
    required = sum(parameter.default is parameter.empty for parameter in parameters.values())
    optional = [*parameters.values()][required : required + 1]
    if not optional or optional[0].annotation != Path | None:
        return args
    found, remaining = list[str](), iter(args)
    for arg in remaining:
        if arg.startswith("-"):
            found += [arg] if "=" in arg or arg in ("-h", "--help") else [arg, *itertools.islice(remaining, 1)]
        else:
            required -= 1
            found += [f"--{optional[0].name}", arg] if required == -1 else [arg]
    return found


def split_fit_options(args: list[str], parameters: Container[str] = ()) -> tuple[list[str], list[str]]:
    """Split arguments into a command's own and those of `fit`: configs, classes, and options with a dot in their names.

    Args:
        args: The command line.
        parameters: Parameters of the command; an option such as `--columns.label` belongs to the parameter `columns`.
    """
    own_args: list[str] = []
    fit_args: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        group = match[1] if (match := re.match(r"--(\w+)\.", arg)) else ""
        name = arg.partition("=")[0].removeprefix("--")
        if name not in parameters and (name in ("config", "model", "data") or (group and group not in parameters)):
            fit_args += [arg] if "=" in arg else [arg, next(remaining, "")]
        else:
            own_args.append(arg)
    return own_args, fit_args
