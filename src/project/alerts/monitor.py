"""From dated texts to alerts: predict, count by window, test."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from project.alerts.detector import SurgeDetector
from project.alerts.results import Results
from project.alerts.rows import Rows
from project.alerts.windows import Window, Windows
from project.runs.job import Trained

CHUNK = 4096
"""Texts that are predicted before the windows that they complete are tested."""


class Monitor:
    """Predicts the classes of texts, and tests the windows that they complete.

    Args:
        trained: The loaded model.
        windows: Counts the texts.
        detector: Tests the windows.
        results: Takes the results.
    """

    def __init__(self, trained: Trained, windows: Windows, detector: SurgeDetector, results: Results) -> None:
        self._trained, self._windows, self._detector, self._results = trained, windows, detector, results
        self.texts = 0

    def add(self, rows: Rows, deliver: bool, stopped: Callable[[], object] = lambda: False) -> None:
        """Add texts in the order of time.

        Args:
            rows: The texts.
            deliver: Deliver the alerts that they raise to the webhook.
            stopped: Return early, after a chunk, if this function returns a true value.
        """
        for start in range(0, len(rows.texts), CHUNK):
            if stopped():
                return
            part = rows.part(start, start + CHUNK)
            self._test(self._windows.add(part.times, part.topics, self._predict(part.texts)), deliver)
            self.texts += len(part.texts)

    def finish(self, deliver: bool) -> None:
        """Test the windows that are not complete."""
        self._test(self._windows.finish(), deliver)

    def _test(self, windows: list[Window], deliver: bool) -> None:
        for window in windows:
            counts = {
                topic: (int(each[0]), int(each[1 + self._results.negative])) for topic, each in window.counts.items()
            }
            self._results.add(window, self._detector.update(window.start, counts), deliver)

    @torch.inference_mode()
    def _predict(self, texts: list[str]) -> NDArray[np.bool_]:
        """Return whether each text is predicted to be of each class or label, bool (N, outputs)."""
        module, data = self._trained.module, self._trained.data
        inputs, target = module.data_description.input, module.data_description.target
        number = {name: place for place, name in enumerate(target.names)}
        predicted = np.zeros((len(texts), target.outputs), np.bool_)
        samples = [inputs.read(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda row: len(samples[row]))  # little padding
        for start in range(0, len(order), data.batch_size):
            rows = order[start : start + data.batch_size]
            batch = torch.from_numpy(inputs.stack([samples[row] for row in rows])).to(module.device)
            with module.trainer.precision_plugin.forward_context():
                scores = module.predictions(inputs.prepare(batch)).cpu().numpy()
            for row, each in zip(rows, scores, strict=True):
                predicted[row, [number[name] for name in target.predicted(each)]] = True
        return predicted
