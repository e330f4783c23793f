"""What asks a run to stop: Ctrl-C, a scheduler, a machine that is about to go."""

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_warn


class Signals:
    """Notes SIGINT, SIGTERM and, in a SLURM job, the signal to requeue; a second SIGINT stops at once.

    Lightning's own handlers give way to these: they drop the step at SIGINT, write a checkpoint in the middle of a step
    at SLURM's signal, and with several processes communicate from within the handler.

    Attributes:
        received: Number of the signal, 0 while there is none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._requeue: int | None = None
        self._before: dict[int, Any] = {}
        self._speaks = False

    def listen(self, trainer: L.Trainer) -> None:
        """Take the handlers over."""
        self.received = int(signal.SIGTERM) if trainer.received_sigterm else 0
        self._speaks = trainer.is_global_zero
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeue = environment.requeue_signal
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, self._requeue):
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            signal.default_int_handler(number, frame)
        if number == signal.SIGINT and self._speaks:  # print would fail if it was interrupted itself
            os.write(2, b"\nstopping after this step and saving; press Ctrl-C again to stop at once\n")
        # Of a scheduler's two signals the first counts: it says whether to queue again.
        self.received = self.received or number

    def leave(self) -> None:
        """Put the handlers back that were there."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def requeue(self, number: int) -> bool:
        """Queue this SLURM job again, if that is what the signal asked for; the first process does it."""
        if number != self._requeue:
            return False
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        try:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
            problem = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            problem = str(error)
        if problem:
            rank_zero_warn(f"job {job} could not be queued again: {problem}")
        return not problem
