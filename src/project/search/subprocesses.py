"""`train.py fit` as a subprocess, and its config."""

import ctypes
import io
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from project.cli import main
from project.errors import UserError

TRAIN = Path(__file__).parents[3] / "train.py"


def start_fit(options: list[str], output: Any = None) -> subprocess.Popen[bytes]:
    """Start `train.py fit` with options; stdout and stderr go to `output`, by default to those of this process.

    The subprocess has its own process group, so that Ctrl-C reaches only this process, which then stops the subprocess
    itself. On Linux it receives SIGTERM if this process is killed.
    """
    return subprocess.Popen(
        [sys.executable, str(TRAIN), "fit", *options],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_terminate_with_parent if sys.platform == "linux" else None,
    )


def _terminate_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG in <linux/prctl.h>


def raise_on_signal() -> None:
    """Let SIGINT and SIGTERM raise a KeyboardInterrupt whose argument is the signal number."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def printed_config(options: list[str], context: str = "") -> str:
    """Return the full config of `train.py fit` with options, as YAML.

    Args:
        options: Configs and options of `train.py fit`.
        context: Prefix of error messages.

    Raises:
        UserError: `fit` rejects the options.
    """
    output, errors = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            main(["fit", *options, "--print_config"])
    except SystemExit as done:
        if done.code:
            line = (errors.getvalue().strip().splitlines() or [f"`train.py fit` exits with code {done.code}"])[-1]
            raise UserError(f"{context}{line.removeprefix('error: ')}") from None
    return output.getvalue()


def resolved_config(options: list[str], context: str = "") -> dict[str, Any]:
    """Return the parsed `printed_config`."""
    config: dict[str, Any] = yaml.safe_load(printed_config(options, context))
    return config
