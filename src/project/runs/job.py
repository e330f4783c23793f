"""The first parameter of a command with a Trainer; its type says whether the command trains or needs a trained model.

Does not import torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from project.errors import UserError

if TYPE_CHECKING:
    import lightning as L

    from project.datamodules import ImageDataModule
    from project.modules import Classifier


@dataclass(frozen=True)
class Job:
    """What a command with a Trainer is called with; subclasses say what the command does with the checkpoint."""

    trainer: "L.Trainer"
    module: "Classifier"
    data: "ImageDataModule"
    checkpoint: Path | None


@dataclass(frozen=True)
class Training(Job):
    """For commands that train: without a checkpoint they start a run, with one they continue its run."""


@dataclass(frozen=True)
class Untrained(Job):
    """For commands that train for a measurement: they take no checkpoint and keep no weights."""


@dataclass(frozen=True)
class Trained(Job):
    """For commands that use a trained model, built with the options and the data description of its checkpoint."""

    checkpoint: Path

    def load(self, labeled: bool) -> bool:
        """Put the trained model, outside training, where the trainer computes, and find the images.

        Returns whether they are those that the model was trained on. These are split as they were then; any other
        folder is read as `predict` reads it, unless it has to be `labeled`.
        """
        from project.runs.checkpoints import load_checkpoint

        trainer, module, data = self.trainer, self.module, self.data
        if trainer.world_size > 1:
            raise UserError("this works on one device: add --trainer.devices 1")
        saved = load_checkpoint(self.checkpoint)
        module.trainer = data.trainer = trainer
        trainer.strategy.connect(module)
        module.configure_model()
        module.load_state_dict(saved["state_dict"])
        module.to(trainer.strategy.root_device).eval()
        theirs = saved.get("datamodule_hyper_parameters", {})
        own = all(theirs.get(name) == data.hparams.get(name) for name in ("root", "labels"))
        data.prepare_data()
        data.setup("test" if own or labeled else "predict")
        return own


@dataclass(frozen=True)
class Evaluation(Trained):
    """For commands that run one of Lightning's evaluation loops and log to a folder of their own."""
