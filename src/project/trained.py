"""A trained model and images to use it on, for commands that are no loop of Lightning's."""

from pathlib import Path

import lightning as L

from project.checkpoints import load_checkpoint
from project.errors import UserError
from project.interface import ImageData
from project.modules import Classifier


def bring_up(trainer: L.Trainer, model: Classifier, data: ImageData, checkpoint: Path, labelled: bool) -> bool:
    """Put a trained model, outside training, where the trainer computes, and find the images.

    Returns whether they are those that the model was trained on. These are split as they were then; any other folder is
    read as `predict` reads it, unless it has to be `labelled`.

    Raises:
        UserError: several processes, or see `load_checkpoint` and `ImageDataModule.setup`.
    """
    if trainer.world_size > 1:
        raise UserError("this works on one device: add --trainer.devices 1")
    saved = load_checkpoint(checkpoint)
    model.trainer = data.trainer = trainer
    trainer.strategy.connect(model)
    model.configure_model()
    model.load_state_dict(saved["state_dict"])
    model.to(trainer.strategy.root_device).eval()
    theirs = saved.get("datamodule_hyper_parameters", {})
    own = all(theirs.get(name) == data.hparams[name] for name in ("root", "labels"))
    data.prepare_data()
    data.setup("test" if own or labelled else "predict")
    return own
