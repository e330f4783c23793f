"""Reading the command line: order of configs, appended callbacks, and errors that a person can act on."""

import difflib
import re
import sys
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser


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


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys; None is left out."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat


class Parser(LightningArgumentParser):
    """LightningCLI's parser with short errors and without abbreviations."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message as the last line and exit with code 2."""
        print("RAW", message, file=sys.stderr)
        raise SystemExit(2)
