"""The report of every test."""

import warnings
from typing import Any

import lightning as L

from project.interface import test_folder


class WriteReport(L.Callback):
    """Writes report.html beside what a test has written; its place is behind the callbacks that write that."""

    def on_test_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Write it, on the first process."""
        folder = test_folder(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        from project.report.page import report

        try:
            for logger in trainer.loggers:
                logger.save()
            report([folder])
        except Exception as error:  # whatever it is, it must not take the end of a long run away
            warnings.warn(f"report.html was not written: {error!r}", stacklevel=1)
