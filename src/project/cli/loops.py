"""Commands that run a loop of the Trainer: fit, validate, test and predict."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import WeightAveraging

from project.callbacks.describe import next_commands
from project.runs.job import Evaluation, Job, Training
from project.runs.logger import RunLogger


def fit(training: Training, test_after_fit: bool = True) -> None:
    """Train a model and test its best checkpoint.

    Args:
        training: Trainer, module and datamodule.
        test_after_fit: Test the best checkpoint after training.
    """
    trainer: Any = training.trainer
    trainer.fit(**_loop_arguments(training))
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if trainer.fast_dev_run or not best:
        return
    # It would restore the non-averaged weights when the checkpoint is loaded.
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]
    if test_after_fit:
        trainer.test(**_loop_arguments(training) | {"ckpt_path": best}, verbose=False)
    if isinstance(trainer.logger, RunLogger):
        trainer.logger.log_results()
    run_folder = trainer.log_dir  # read on every process, as it is broadcast
    if trainer.is_global_zero and run_folder:
        print("", *next_commands(Path(run_folder), Path(best), test_after_fit), sep="\n")


def validate(trained: Evaluation) -> None:
    """Evaluate a trained model on the val split."""
    trained.trainer.validate(**_loop_arguments(trained), verbose=False)


def test(trained: Evaluation) -> None:
    """Evaluate a trained model on the test split."""
    trained.trainer.test(**_loop_arguments(trained), verbose=False)


def predict(trained: Evaluation) -> None:
    """Predict the classes of a folder of images or of one image, and write predictions.csv."""
    trained.trainer.predict(**_loop_arguments(trained), return_predictions=False)


def _loop_arguments(job: Job) -> dict[str, Any]:
    return {"model": job.module, "datamodule": job.data, "ckpt_path": job.checkpoint, "weights_only": True}
