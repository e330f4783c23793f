"""`python -m project TOOL`: what needs no Trainer. A tool is a typed function, imported when it is called."""

import importlib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable
from typing import Any, get_origin

from project.errors import Interrupted, UserError, missing_extra, report
from project.output import print_plainly

TOOLS = {
    "check_data": ("project.datamodules.check", "look for what would spoil a result, before training"),
    "shard": ("project.datamodules.shards", "write images as a few large files, for sets too large to hold"),
    "report": ("project.report.page", "the page of a tested run, or of several side by side"),
    "sweep": ("project.search.sweep", "search for the best options, one run a trial"),
    "groups": ("project.audit.groups", "whether a tested run serves all groups of images alike"),
    "model_card": ("project.audit.model_card", "what to know of a model before using it, as far as it was measured"),
    "predict_exported": ("project.deploy.predict", "classify a folder by an exported model, with ONNX without torch"),
    "serve": ("project.serve.serve", "answer over HTTP by an exported model, with a page to try it on"),
    "cross_validate": ("project.cross_validation", "train once for each fold; mean and spread"),
    "make_key": ("project.secure.sign", "a key pair to sign with"),
    "sign": ("project.secure.sign", "sign a run or a model"),
    "verify": ("project.secure.sign", "see that a run or a model is as it was signed"),
    "encrypt": ("project.secure.encrypt", "encrypt a file, such as a checkpoint on a disk that others read"),
    "decrypt": ("project.secure.encrypt", "decrypt it"),
}


def main(args: list[str] | None = None) -> None:
    """Run one tool; its options are the arguments of its function.

    Configs, options with a dot in their names, and what stands behind ` -- `, are handed on to `train.py fit` by tools
    that train.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print("usage: python -m project TOOL [options]; options: python -m project TOOL --help\n")
        print("\n".join(f"  {name:<18}{what}" for name, (_, what) in TOOLS.items()))
        return
    name, *rest = args
    print_plainly()
    if name not in TOOLS:
        from project.parser import Parser

        hint = Parser.hint(name, {tool: tool for tool in TOOLS})
        report(UserError(f"no tool {name} among {', '.join(TOOLS)}{hint}"))
    given: dict[str, Any] = {}
    if "--" in rest:
        at = rest.index("--")
        rest, given["fit_options"] = rest[:at], rest[at + 1 :]
    # --short-side and --short_side are the same, as people type both.
    rest = [re.sub(r"^--[\w-]+", lambda name: f"--{name[0][2:].replace('-', '_')}", arg) for arg in rest]
    from jsonargparse import auto_cli

    from project.parser import Parser, in_order, without_empty_configs

    try:
        _, *rest = without_empty_configs(in_order([name, *rest]))
        rest, of_fit = shared_out(rest)
        if of_fit:
            given["fit_options"] = [*of_fit, *given.get("fit_options", [])]
        tool: Callable[..., Any] = getattr(importlib.import_module(TOOLS[name][0]), name)
        wanted = inspect.signature(tool).parameters
        if given and "fit_options" not in wanted:
            unwanted = " ".join(given["fit_options"]) or "--"
            raise UserError(f"{name} trains nothing: it takes no options of train.py fit, such as {unwanted}")
        first = next(iter(wanted.values()))
        if get_origin(first.annotation) is list and first.default is first.empty:  # RUN RUN ... on the command line
            words = list(itertools.takewhile(lambda arg: not arg.startswith("-"), rest))
            rest = [json.dumps(words), *rest[len(words) :]] if words else rest
        program = f"python -m project {name}"
        auto_cli(tool, args=rest, set_defaults=given, parser_class=Parser, prog=program, allow_abbrev=False)
    except Interrupted as stopped:
        report(stopped, code=stopped.code, label="")
    except UserError as error:
        report(error)
    except ModuleNotFoundError as error:
        report(missing_extra(error))


def shared_out(args: list[str]) -> tuple[list[str], list[str]]:
    """A tool's own options, and configs and options with a dot in their names, which are those of `train.py fit`."""
    own: list[str] = []
    of_fit: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        if arg == "--config" or re.match(r"--\w+\.", arg):
            of_fit += [arg] if "=" in arg else [arg, next(remaining, "")]
        else:
            own.append(arg)
    return own, of_fit


if __name__ == "__main__":
    main()
