"""From the first word to its command, before torch or Lightning is imported: plain tools may need neither."""

import inspect
import sys

from project.cli.commands import commands, overview
from project.errors import UserError, report_errors
from project.interface import import_object
from project.output import configure_output, did_you_mean
from project.runs.job import Job


def main(args: list[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one line and exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    configure_output()
    if args[:1] in ([], ["-h"], ["--help"]):
        print(overview())
        return
    with report_errors():
        name = args[0]
        if name.startswith("-"):
            raise UserError(f"say first what to do, then the options: train.py {', '.join(commands())}")
        if name not in commands():
            known = {command: command for command in commands()}
            raise UserError(f"no command {name} among {', '.join(known)}{did_you_mean(name, known)}")
        command = import_object(commands()[name][0])
        first = next(iter(inspect.signature(command).parameters.values()), None)
        kind = first.annotation if first else None
        if isinstance(kind, type) and issubclass(kind, Job):
            from project.cli.training import run

            run(name, command, kind, args)
        else:
            from project.cli.tools import run_tool

            run_tool(name, command, args)
