"""Commands that run a loop of the Trainer: fit, validate, test and predict."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn

from project.callbacks.describe import next_commands
from project.output import pluralize
from project.runs.checkpoints import LAST
from project.runs.job import Evaluation, Job, Training
from project.runs.logger import RunLogger


def fit(training: Training, test_after_fit: bool = True) -> None:
    """Train a model and test its best checkpoint, or the last one if there is no best.

    Args:
        training: Trainer, module and datamodule.
        test_after_fit: Test the checkpoint after training.
    """
    trainer: Any = training.trainer
    trainer.fit(**_loop_arguments(training))
    if trainer.fast_dev_run:
        return
    best = trainer.checkpoint_callback.best_model_path
    if not best:
        best = str(Path(trainer.checkpoint_callback.dirpath) / LAST)
        rank_zero_warn(f"{_why_no_best(trainer)}: there is no best checkpoint, {LAST} takes its place")
    # It would restore the non-averaged weights when the checkpoint is loaded.
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]
    if test_after_fit:
        trainer.test(**_loop_arguments(training) | {"ckpt_path": best}, verbose=False)
    if isinstance(trainer.logger, RunLogger):
        trainer.logger.log_results()
    run_folder = trainer.log_dir  # read on every process, as it is broadcast
    if trainer.is_global_zero and run_folder:
        print("", *next_commands(Path(run_folder), Path(best), test_after_fit, training.data.other_data), sep="\n")


def _why_no_best(trainer: Any) -> str:
    """Return why training left no best checkpoint."""
    if any(name.startswith("val/") for name in trainer.callback_metrics):
        return f"checkpoint.save_top_k is {trainer.checkpoint_callback.save_top_k}"
    every, epochs = trainer.check_val_every_n_epoch, pluralize(trainer.current_epoch, "epoch")
    return f"validation never ran in {epochs}" + (f" (trainer.check_val_every_n_epoch {every})" if every != 1 else "")


def validate(trained: Evaluation) -> None:
    """Evaluate a trained model on the val split."""
    trained.trainer.validate(**_loop_arguments(trained), verbose=False)


def test(trained: Evaluation) -> None:
    """Evaluate a trained model on the test split."""
    trained.trainer.test(**_loop_arguments(trained), verbose=False)


def predict(trained: Evaluation) -> None:
    """Predict the classes of images or texts, and write predictions.csv."""
    trained.trainer.predict(**_loop_arguments(trained), return_predictions=False)


def _loop_arguments(job: Job) -> dict[str, Any]:
    return {"model": job.module, "datamodule": job.data, "ckpt_path": job.checkpoint, "weights_only": True}
