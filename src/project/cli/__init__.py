"""The command line: `train.py COMMAND`."""

from project.cli.dispatch import main

__all__ = ["main"]
