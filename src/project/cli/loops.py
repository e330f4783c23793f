"""The commands that are loops of Lightning's."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import WeightAveraging

from project.callbacks.describe import next_commands
from project.runs.job import Evaluation, Job, Training
from project.runs.logger import RunLogger


def fit(training: Training, test_after_fit: bool = True) -> None:
    """Train a net, and test its best checkpoint.

    Args:
        training: The model and the data.
        test_after_fit: Test the best checkpoint after fit.
    """
    trainer: Any = training.trainer
    trainer.fit(**_given(training))
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if trainer.fast_dev_run or not best:
        return
    # Left in place, it would put the weights that were not averaged back in on loading the checkpoint.
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]
    if test_after_fit:
        trainer.test(**_given(training) | {"ckpt_path": best}, verbose=False)
    if isinstance(trainer.logger, RunLogger):
        trainer.logger.log_results()
    run = trainer.log_dir  # on every process: it is broadcast
    if trainer.is_global_zero and run:
        print("", *next_commands(Path(run), Path(best), test_after_fit), sep="\n")


def validate(trained: Evaluation) -> None:
    """Evaluate a trained model on the val split."""
    trained.trainer.validate(**_given(trained), verbose=False)


def test(trained: Evaluation) -> None:
    """Evaluate a trained model on the test split."""
    trained.trainer.test(**_given(trained), verbose=False)


def predict(trained: Evaluation) -> None:
    """Predict the class of each image of a folder, or of a single one."""
    trained.trainer.predict(**_given(trained), return_predictions=False)


def _given(job: Job) -> dict[str, Any]:
    return {"model": job.module, "datamodule": job.data, "ckpt_path": job.checkpoint, "weights_only": True}
