"""Callback that adds attribution maps to the report of a test."""

from typing import Any

import lightning as L
from typing_extensions import override

from project.callbacks import TestSummary
from project.interface import ImageInput, data_of


class AttributionOverlays(L.Callback):
    """Callback that overlays Grad-CAM maps on the images shown in the report of a test."""

    @override
    def on_test_start(self, trainer: L.Trainer, *_: Any) -> None:
        from project.explain.attribution import overlays  # slow to import, and needed only here

        supported = isinstance(data_of(trainer).description.input, ImageInput)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TestSummary):
                callback.overlays = overlays if supported else None
