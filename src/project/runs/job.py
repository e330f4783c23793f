"""Types of the first parameter of a command with a Trainer: whether it trains or needs a trained model.

Does not import torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from project.errors import UserError

if TYPE_CHECKING:
    import lightning as L

    from project.datamodules.indexed import IndexedDataModule
    from project.modules import Classifier


@dataclass(frozen=True)
class Job:
    """Arguments of a command with a Trainer; the subclass defines how the command uses the checkpoint."""

    trainer: "L.Trainer"
    module: "Classifier"
    data: "IndexedDataModule"
    checkpoint: Path | None


@dataclass(frozen=True)
class Training(Job):
    """For commands that train: start a run, or resume the run of the checkpoint if there is one."""


@dataclass(frozen=True)
class Untrained(Job):
    """For commands that train only to measure: no checkpoint, no saved weights."""


@dataclass(frozen=True)
class Trained(Job):
    """For commands that use a trained model, built from the options and data description in its checkpoint."""

    checkpoint: Path

    def load_model(self) -> None:
        """Load the weights, and move the model to the trainer's device in eval mode.

        Raises:
            UserError: The trainer has several devices.
        """
        from project.runs.checkpoints import load_checkpoint

        if self.trainer.world_size > 1:
            raise UserError("this command runs on one device: add --trainer.devices 1")
        saved = load_checkpoint(self.checkpoint)
        self.module.trainer = self.trainer
        self.trainer.strategy.connect(self.module)
        self.module.configure_model()
        self.module.load_state_dict(saved["state_dict"])
        self.module.to(self.trainer.strategy.root_device).eval()

    def load(self, stage: Literal["validate", "test", "predict"]) -> bool:
        """Load the model as in `load_model`, and set up the data.

        The dataset that the model was trained on is split as in training. Of another one, all images are in the split
        of the stage, unless it has splits of its own; `predict` reads it without labels.

        Returns:
            True if the data is the dataset that the model was trained on.

        Raises:
            UserError: The trainer has several devices.
        """
        self.load_model()
        data = self.data
        data.trainer = self.trainer
        data.prepare_data()
        data.setup("test" if stage == "predict" and not data.is_other else stage)
        return not data.is_other


@dataclass(frozen=True)
class Evaluation(Trained):
    """For commands that run a Lightning evaluation loop and log to a new folder."""
