"""Evidence beside the mistakes of a report."""

from typing import Any

import lightning as L

from project.callbacks import TestSummary
from project.interface import ClassTarget, ImageInput, data_of


class AttributionOverlays(L.Callback):
    """Has a test lay Grad-CAM's evidence over the images that its report shows."""

    def on_test_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Offer it to what collects them."""
        from project.explain.attribution import overlays  # other commands do without

        description = data_of(trainer).description
        fits = isinstance(description.input, ImageInput) and isinstance(description.target, ClassTarget)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TestSummary):
                callback.overlays = overlays if fits else None
