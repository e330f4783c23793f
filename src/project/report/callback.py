"""Callback that writes the report."""

import warnings
from typing import Any

import lightning as L
from typing_extensions import override

from project.interface import test_folder
from project.runs.trackers import log_report


class WriteReport(L.Callback):
    """Callback that writes report.html into the run folder after each test.

    It must come after the callbacks that write the test results.
    """

    @override
    def on_test_end(self, trainer: L.Trainer, *_: Any) -> None:
        folder = test_folder(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        from project.report.page import report

        try:
            for logger in trainer.loggers:
                logger.save()
            report([folder])
            log_report(trainer, folder / "report.html")
        except Exception as error:  # a failing report must not fail the run
            warnings.warn(f"report.html was not written: {error!r}", stacklevel=1)
