"""Callback that adds attribution maps to the report of a test."""

from typing import Any

import lightning as L
from typing_extensions import override

from project.callbacks import TestSummary
from project.interface import ImageInput, data_of, import_part


class AttributionOverlays(L.Callback):
    """Callback that adds attributions to the samples shown in the report of a test, e.g. Grad-CAM maps to images."""

    @override
    def on_test_start(self, trainer: L.Trainer, *_: Any) -> None:
        from project.explain.attribution import overlays  # slow to import, and needed only here

        inputs = data_of(trainer).description.input
        function = overlays if isinstance(inputs, ImageInput) else import_part(__package__, inputs, "overlays.overlays")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TestSummary):
                callback.overlays = function
