"""`train.py fit` as a process of its own: what it makes of options, and how it is asked to stop."""

import ctypes
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from project.errors import UserError

TRAIN = Path(__file__).parents[3] / "train.py"


def start_fit(options: list[str], output: Any = None) -> subprocess.Popen[bytes]:
    """Start a run by options of `train.py fit`; what it prints goes to `output`, by default where our own goes.

    It has a group of its own: Ctrl-C reaches who started it, to ask it to stop; and SIGTERM when that one is killed, so
    that no run goes on unseen.
    """
    return subprocess.Popen(
        [sys.executable, str(TRAIN), "fit", *options],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG in <linux/prctl.h>


def raise_on_signal() -> None:
    """Let SIGINT and SIGTERM raise a KeyboardInterrupt that holds the signal's number."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def printed_config(options: list[str], context: str = "") -> str:
    """The whole config, as YAML, that `train.py fit` makes of options; an error message begins with the context."""
    command = [sys.executable, str(TRAIN), "fit", *options, "--print_config"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise UserError(f"{context}{line.removeprefix('error: ')}")
    return done.stdout


def resolve(options: list[str], context: str = "") -> dict[str, Any]:
    """`printed_config`, read."""
    config: dict[str, Any] = yaml.safe_load(printed_config(options, context))
    return config
