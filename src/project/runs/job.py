"""What a command with a Trainer is given: the type of its first parameter says which. Imports no torch."""

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
    """A Trainer, a module and a datamodule, as configs and command line say, and maybe a checkpoint.

    A command of this type trains: it begins a run, or continues that of the checkpoint.
    """

    trainer: "L.Trainer"
    module: "Classifier"
    data: "ImageDataModule"
    checkpoint: Path | None


@dataclass(frozen=True)
class Untrained(Job):
    """A command of this type trains to find something out: it takes no checkpoint and keeps no weights."""


@dataclass(frozen=True)
class Trained(Job):
    """A command of this type uses the model of a checkpoint, of which it has the options and the data description."""

    checkpoint: Path

    def load(self, labelled: bool) -> bool:
        """Put the trained model, outside training, where the trainer computes, and find the images.

        Returns whether they are those that the model was trained on. These are split as they were then; any other
        folder is read as `predict` reads it, unless it has to be `labelled`.
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
        data.setup("test" if own or labelled else "predict")
        return own


@dataclass(frozen=True)
class Evaluation(Trained):
    """A command of this type runs a loop of Lightning's over a split, and leaves its results in a folder of its own."""
