"""The command line. `train.py COMMAND` and `python -m project COMMAND` are the same program."""

from project.cli.dispatch import main

__all__ = ["main"]
