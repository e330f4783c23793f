"""What people read: what is printed and what is not, words, and texts without secrets."""

import difflib
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping

IGNORED_WARNINGS = (
    r".*does not have many workers.*",  # workers are chosen for the machine
    r".*sync_dist=True.*",  # the metrics are synchronized when they are computed
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",  # lightning against torch 2.14
    r".*You.re using the WeightAveraging callback with a model that overrides.*",
    r".*your dataloader is not resumable.*",  # it is: it asks where the epoch stands
    r".*distributed\.nn\.functional\.all_gather is deprecated.*",
    r".*You called `self\.log\('.*_per_second'.*",
    r".*module\(s\) in eval mode at the start of training.*",  # the frozen ones
    r".*callbacks used to create the checkpoint.*",  # such as early stopping, for a test
    r".*The dirpath has changed from .*",
    r"Glyph \d+ .* missing from font.*",  # a box is drawn in its place
)
"""Warnings that a user could do nothing about."""


def configure_output() -> None:
    """Print a warning as its message alone, without the place in the code; names of files in whatever encoding."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has none
        sys.stdout.reconfigure(errors="backslashreplace")


def silence_lightning() -> None:
    """Leave out what Lightning says of itself, and warns of without need."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)


def pluralize(number: int, noun: str) -> str:
    """1 epoch, 2 epochs, 1,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def printable(name: str) -> str:
    """A name of a file or class as it can be shown; bytes of it that are no UTF-8 become question marks."""
    return name.encode(errors="replace").decode()


def redact_secrets(text: str) -> str:
    """A text that is to be kept or shown, without passwords of addresses and what the environment keeps secret.

    USER:PASSWORD@ becomes USER:***@, and the value of a variable with TOKEN, SECRET, PASSWORD or KEY in its name
    becomes that name.
    """
    text = re.sub(r"(://[^/@\s:]*):[^@/\s]+@", r"\1:***@", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search("TOKEN|SECRET|PASSWORD|KEY", name.upper()):
            text = text.replace(value, f"${name}")
    return text


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    """The likely spelling of a name, of those that are known; empty if none is close."""
    last = name.rpartition(".")[2]
    known = {key: option for key, option in known.items() if option != f"--{name}"}  # of another class
    if last in known:
        return f"; did you mean {known[last]}?"
    for wanted in (name, last):
        if close := difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.7):
            return f"; did you mean {known[close[0]]}?"
    return ""
