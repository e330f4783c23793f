"""Console output: warnings, formatting of numbers and names, redaction of secrets, spelling suggestions."""

import difflib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

IGNORED_WARNINGS = (
    r".*does not have many workers.*",  # the number of workers is chosen for this machine
    r".*sync_dist=True.*",  # the metrics are synchronized when they are computed
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",  # lightning against torch 2.14
    r".*You.re using the WeightAveraging callback with a model that overrides.*",
    r".*your dataloader is not resumable.*",  # it is: its sampler resumes at the trainer's position
    r".*distributed\.nn\.functional\.all_gather is deprecated.*",
    r".*You called `self\.log\('.*_per_second'.*",
    r".*module\(s\) in eval mode at the start of training.*",  # frozen modules
    r".*callbacks used to create the checkpoint.*",  # e.g. early stopping, when testing
    r".*The dirpath has changed from .*",
    r"Glyph \d+ .* missing from font.*",  # a box is drawn instead
)
"""Warnings that do not apply to this project or that a user cannot act on."""

SEPARATOR = "|"
"""Between the labels of a sample in a cell of a table."""


def configure_output() -> None:
    """Print warnings without their source line, and escape characters that the terminal cannot encode."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def exit_on_closed_pipe() -> Iterator[None]:
    """Exit without a traceback if the reader of standard output has exited, as in `train.py --help | head -2`."""
    try:
        yield
        print(end="", flush=True)
    except (BrokenPipeError, SystemExit) as error:
        try:
            # Fails again if standard output is the closed pipe; unbuffered, only if there is something to write.
            print(end="\n" if isinstance(error, BrokenPipeError) else "", flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more on exit
            raise SystemExit(getattr(error, "code", None) or 141) from None  # 128 + SIGPIPE
        raise


def silence_lightning() -> None:
    """Suppress Lightning's info messages and the warnings in `IGNORED_WARNINGS`."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun, e.g. 1 epoch, 2 epochs, 1,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Return a duration for display, e.g. 42 s, 3 min 5 s, 2 h 10 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    return f"{total // 60} min {total % 60} s" if total < 3600 else f"{total // 3600} h {total % 3600 // 60} min"


def shorten(text: str, length: int = 80) -> str:
    """Return a text in one line of at most `length` characters for display."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def printable(name: str) -> str:
    """Return a file or class name for display; bytes that are not valid UTF-8 become question marks."""
    return name.encode(errors="replace").decode()


def redact_secrets(text: str) -> str:
    """Return a text without the passwords of URLs and the values of secret environment variables.

    USER:PASSWORD@ becomes USER:***@, and the value of an environment variable with TOKEN, SECRET, PASSWORD or KEY in
    its name becomes $NAME.
    """
    text = re.sub(r"(://[^/@\s:]*):[^@/\s]+@", r"\1:***@", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search("TOKEN|SECRET|PASSWORD|KEY", name.upper()):
            text = text.replace(value, f"${name}")
    return text


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    """Return "; did you mean X?" for the most similar known name, or an empty string if none is similar.

    Args:
        name: The unknown name, e.g. `trainer.max_epoch`.
        known: Suggestion by known name.
    """
    last = name.rpartition(".")[2]
    known = {key: option for key, option in known.items() if option != f"--{name}"}  # an option of another class
    if last in known:
        return f"; did you mean {known[last]}?"
    for spelling in (name, last):
        if matches := difflib.get_close_matches(spelling, list(known), n=1, cutoff=0.7):
            return f"; did you mean {known[matches[0]]}?"
    return ""
