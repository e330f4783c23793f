"""Signal handling: Ctrl-C, preemption, and requeueing of SLURM jobs."""

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
    """Records SIGINT, SIGTERM and SLURM's requeue signal; a second SIGINT stops immediately.

    Replaces the handlers of Lightning, which drop the current step on SIGINT, save in the middle of a step on the
    requeue signal, and communicate between processes inside the handler.

    Attributes:
        received: Number of the received signal, 0 if none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._requeue_signal: int | None = None
        self._previous: dict[int, Any] = {}
        self._is_global_zero = False

    def install(self, trainer: L.Trainer) -> None:
        """Install the signal handlers."""
        self.received = int(signal.SIGTERM) if trainer.received_sigterm else 0
        self._is_global_zero = trainer.is_global_zero
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeue_signal = environment.requeue_signal
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, self._requeue_signal):
                if number is not None:
                    self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            signal.default_int_handler(number, frame)
        if number == signal.SIGINT and self._is_global_zero:  # print is not reentrant
            os.write(2, b"\nstopping after this step and saving; press Ctrl-C again to stop immediately\n")
        # Keep the first: SIGTERM often follows the requeue signal.
        self.received = self.received or number

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def requeue(self, number: int) -> bool:
        """Requeue this SLURM job if the signal is its requeue signal; return True on success."""
        if number != self._requeue_signal:
            return False
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        try:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
            problem = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            problem = str(error)
        if problem:
            rank_zero_warn(f"cannot requeue job {job}: {problem}")
        return not problem
