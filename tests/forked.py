"""Run train.py in a process forked from one that has imported torch and Lightning, which saves seconds per process.

Libraries whose work is done at exit, such as trackers, need a process of their own: `atexit` is not called.
"""

import os
import subprocess
import sys
import tempfile
import types
from functools import cache
from multiprocessing import get_context, set_start_method
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest.mock import patch

SCRIPT = str(Path(__file__).parents[1] / "train.py")
IMPORTED = ("project.cli.training", "project.report.callback", "torch.utils.tensorboard", "matplotlib.pyplot")
"""What a `fit` imports; modules that are not there are passed over."""


@cache
def server() -> ForkServerContext:
    """Return the context of the process that the others are forked from; it starts with the first of them."""
    context = get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED])
    return context


def call(args: list[str], cwd: Path, environment: dict[str, str], output: str) -> None:
    """Become a process like `python train.py ARGS` in its own process group, which writes to a file."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    set_start_method("fork", force=True)  # of workers, as in a process of its own
    sys.modules["__main__"] = types.ModuleType("__main__")  # Lightning starts its other processes from sys.argv
    sys.argv = [SCRIPT, *args]
    sys.orig_argv = [sys.executable, *sys.argv]  # which runs record
    from project.cli import main

    main()


class Forked:
    """A process with the methods of subprocess.Popen; its output includes stderr."""

    def __init__(self, args: list[str], cwd: Path, environment: dict[str, str]) -> None:
        self.args, self.folder = args, tempfile.TemporaryDirectory()
        self.output = Path(self.folder.name) / "output"
        self.process = server().Process(target=call, args=(args, cwd, environment, str(self.output)))
        with patch.dict(os.environ, OMP_NUM_THREADS="1"):  # read when torch is imported
            self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while the process runs."""
        return self.process.exitcode

    @property
    def returncode(self) -> int | None:
        """The same."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the process."""
        self.process.join(timeout)
        if timeout is not None and self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for the end of the process and return its output."""
        self.wait(timeout)
        return self.output.read_text(), None
