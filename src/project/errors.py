"""The one exception for what a user can mend."""

import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn


class UserError(Exception):
    """A mistake in the data, the configuration or the command line.

    The message says what is wrong, where, and how to mend it. The command line prints it as the last line on the
    screen, without a traceback, and exits with code 2.

    Args:
        message: One sentence or two.
        details: Lines to print before it.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details


class RunFinishedError(UserError):
    """There is nothing left to train of the run that was to be continued."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal asked a run to stop, and all is saved; the message says how to continue.

    Args:
        message: One sentence or two.
        code: The exit code, 128 and the signal's number.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


EXTRAS = {
    "huggingface_hub": "transfer",
    "imagehash": "data",
    "litdata": "data",
    "s3fs": "s3",
    "safetensors": "transfer",
    "timm": "transfer",
}
"""The extra that brings a package."""


def missing_extra(error: ModuleNotFoundError) -> UserError:
    """What to install for a package that an extra brings; any other missing package is a bug and raised again."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        raise error
    return UserError(f"this needs the package {package}: pip install -e '.[{EXTRAS[package]}]'")


def show_warnings_as_lines() -> None:
    """Print a warning as its message alone, without the place in the code that it comes from."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


def report(error: Exception, code: int = 2, label: str = "error: ") -> NoReturn:
    """End the program with the error as one line, the last on the screen."""
    for line in getattr(error, "details", ()):
        print(line, file=sys.stderr)
    # A worker's error comes wrapped in its traceback; the message is what stands behind the exception's name.
    message = str(error).rpartition("project.errors.UserError: ")[2]
    print(f"{label}{' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code) from None
