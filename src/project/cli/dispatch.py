"""Entry point of the command line. Imports torch and Lightning only if the command needs them."""

import inspect
import sys

from project.cli.commands import commands, overview
from project.errors import UserError, report_errors
from project.interface import import_object
from project.output import configure_output, did_you_mean, exit_on_closed_pipe
from project.runs.job import Job


def main(args: list[str] | None = None) -> None:
    """Run a command; user errors are reported as one line with exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    configure_output()
    with exit_on_closed_pipe(), report_errors():
        if args[:1] in ([], ["-h"], ["--help"]):
            print(overview())
            return
        name = args[0]
        if name.startswith("-"):
            raise UserError(f"missing command: train.py {{{','.join(commands())}}} [options]")
        if name not in commands():
            suggestion = did_you_mean(name, {command: command for command in commands()})
            raise UserError(f"unknown command '{name}'{suggestion or ': choose from ' + ', '.join(commands())}")
        command = import_object(commands()[name][0])
        first = next(iter(inspect.signature(command).parameters.values()), None)
        kind = first.annotation if first else None
        if isinstance(kind, type) and issubclass(kind, Job):
            from project.cli.training import run

            run(name, command, kind, args)
        else:
            from project.cli.tools import run_function

            run_function(name, command, args)
