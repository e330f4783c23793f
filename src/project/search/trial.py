"""One trial: `train.py fit` in a process of its own, watched from outside by what it writes."""

import contextlib
import csv
import math
import os
import signal
import subprocess
from pathlib import Path

from project.checkpoints import LAST, PREVIOUS
from project.child import start_fit
from project.run import CHECKPOINTS

PATIENCE = 20
"""Seconds that a process has to save and end when it is asked to."""


class TrialRun:
    """A running `fit` in FOLDER/NAME/version_N; what it prints goes to FOLDER/NAME/output.txt.

    Args:
        folder: The sweep's folder.
        name: The trial's own folder in it.
        options: Arguments of `train.py fit`.
    """

    def __init__(self, folder: Path, name: str, options: list[str]) -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        own = ["--trainer.default_root_dir", str(folder), "--run_name", name, "--test_after_fit", "false"]
        with (self._folder / "output.txt").open("ab") as output:
            self._process = start_fit([*options, *own], output)

    def has_ended(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    @property
    def error(self) -> str | None:
        """Why a process that is over did not come to its end: its last line, as a rule."""
        code = self._process.returncode
        if not code:
            return None
        text = (self._folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), f"exit code {code}")
        return last if code > 0 else f"killed by signal {-code}; {last}"

    def values(self, metric: str) -> list[float]:
        """The metric after each validation so far, where it is a number."""
        runs = sorted(self._folder.glob("version_*"), key=lambda run: int(run.name[8:]))
        file = (runs or [self._folder])[-1] / "metrics.csv"
        if not file.is_file():
            return []
        with file.open(newline="") as stream:
            found = [float(row[metric]) for row in csv.DictReader(stream) if row.get(metric)]
        return [value for value in found if math.isfinite(value)]

    def stop(self) -> None:
        """Ask it to save and end, and see that it and the processes it started do."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def forget_how_to_continue(self) -> None:
        """Delete last.ckpt and the one before: with those of every trial, a sweep would fill a disk."""
        for name in (LAST, PREVIOUS):
            for file in self._folder.glob(f"version_*/{CHECKPOINTS}/{name}"):
                file.unlink()
