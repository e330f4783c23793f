"""Whether the probabilities of a test can be taken at their word."""

from typing import Any

import lightning as L
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassCalibrationError

from project.interface import Batch, class_names

BINS = 15
"""Of the calibration error, as in the paper."""


def brier(probabilities: Tensor, label: Tensor) -> Tensor:
    """Squared distance of each image's probabilities, (N, classes), from its label, int64 (N,): (N,) in [0, 2].

    Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    of_label = probabilities.gather(1, label[:, None])[:, 0]
    return probabilities.square().sum(1) - 2 * of_label + 1


class Calibration(L.Callback):
    """Logs test/calibration_error (expected, see `report.figures`) and test/brier."""

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        self._error = MulticlassCalibrationError(len(class_names(trainer)), n_bins=BINS).to(pl_module.device)
        self._brier = MeanMetric().to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        probabilities: Tensor = outputs
        self._error.update(probabilities, batch.label)
        self._brier.update(brier(probabilities, batch.label))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log both, over all processes."""
        pl_module.log_dict({"test/calibration_error": self._error.compute(), "test/brier": self._brier.compute()})
