"""The command `calibrate`: temperature scaling on the val split."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from project.audit.model import predict_logits
from project.callbacks.describe import python_command
from project.errors import UserError
from project.interface import SPLITS
from project.modules.tasks.multiclass import Multiclass, brier
from project.output import pluralize
from project.runs.checkpoints import DurableCheckpointIO, load_checkpoint
from project.runs.job import Trained
from project.runs.statistics import BINS, wilson_interval


def calibrate(trained: Trained, target_accuracy: float | None = None) -> None:
    """Fit a temperature on the val split and save it in the checkpoint.

    Args:
        trained: The classifier and its dataset.
        target_accuracy: Also find the confidence threshold at which predictions on val reach this accuracy, in (0, 1);
            `predict` then reports for each image whether its confidence reaches the threshold.

    Raises:
        UserError: no temperature or no threshold can be found; see also `Trained.load`.
    """
    if target_accuracy is not None and not 0 < target_accuracy < 1:
        raise UserError(f"--target_accuracy must be above 0 and below 1, got {target_accuracy}")
    trained.load("validate")
    data, task = trained.data, trained.module.task
    assert isinstance(task, Multiclass)
    sizes = data.split_sizes()
    if not sizes["val"]:
        raise UserError(f"{data.folder} has no val split to fit a temperature on: add ROOT/val/CLASS/IMAGE")
    outputs = {split: predict_logits(trained, split) for split in SPLITS[1:] if sizes[split]}
    before, after = float(task.temperature), fit_temperature(*outputs["val"])
    print(f"\n{'':<14}{'images':>8}{'accuracy':>10}{'calibration error':>19}{'Brier':>9}{'log loss':>10}")
    losses = {}
    for split, (logits, label) in outputs.items():
        accuracy = float((logits.argmax(1) == label).double().mean())
        for when, temperature in (("before", before), ("after", after)):
            probabilities = (logits / temperature).softmax(1)
            error = multiclass_calibration_error(probabilities, label, logits.shape[1], n_bins=BINS)
            losses[split, when] = float(F.cross_entropy(logits / temperature, label))
            figures = f"{float(brier(probabilities, label).mean()):>9.4f}{losses[split, when]:>10.4f}"
            print(f"{f'{split} {when}':<14}{len(label):>8,}{accuracy:>10.2%}{float(error):>19.4f}{figures}")
    if "test" not in outputs:
        print("no test split: the temperature was fitted on these images, so the figures after it are optimistic")
    elif losses["test", "after"] > losses["test", "before"]:
        print(f"log loss increased on test: {pluralize(sizes['val'], 'val image')} may be too few to fit a temperature")
    threshold: float | None = None
    if target_accuracy is not None:
        for split, (logits, label) in outputs.items():
            confidence, predicted = (logits / after).softmax(1).max(1)
            correct = predicted == label
            if threshold is None:  # val comes first
                threshold = confidence_threshold(confidence, correct, target_accuracy)
            print(f"{split}: {_coverage(correct, confidence >= threshold, threshold)}")
    checkpoint = load_checkpoint(trained.checkpoint)
    target = checkpoint["data_description"]["target"]["init_args"]
    if threshold is None and target["confidence_threshold"] is not None:
        print("the confidence threshold is reset: pass --target_accuracy to find a new one")
    checkpoint["state_dict"]["task.temperature"] = torch.tensor(after, dtype=torch.float32)
    target["confidence_threshold"] = threshold
    DurableCheckpointIO().save_checkpoint(checkpoint, trained.checkpoint)
    print(f"\ntemperature {after:.4f} (before: {before:.4f}), saved in {trained.checkpoint}")
    command = f"{python_command()} train.py test --ckpt_path {trained.checkpoint}"
    print(f"existing reports were made before calibration; to test again: {command}")


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """Return the temperature with the lowest log loss.

    Guo et al., On Calibration of Modern Neural Networks, 2017.

    Args:
        logits: float64 (N, classes).
        label: int64 (N,).

    Raises:
        UserError: all predictions are correct, or the model is no better than chance.
    """
    of_label = logits.gather(1, label[:, None])[:, 0]
    rivals = logits.scatter(1, label[:, None], -torch.inf).max(1).values
    if (rivals < of_label).all():
        raise UserError(
            f"the model predicts all {pluralize(len(label), 'val image')} correctly, so no temperature can be fitted: "
            "calibrate on more images, --data.root DIR"
        )
    if (of_label - logits.mean(1)).mean() <= 0:
        raise UserError("the model is no better than chance on val: calibration cannot fix that")
    # Optimized in log space, which keeps the temperature positive; the log loss has a single minimum.
    logarithm = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logarithm], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / logarithm.exp(), label)
        loss.backward()
        return loss

    optimizer.step(closure)
    return math.exp(float(logarithm.detach()))


def confidence_threshold(confidence: Tensor, correct: Tensor, target: float) -> float:
    """Return the lowest confidence threshold at which the accuracy is at least `target`.

    Args:
        confidence: float (N,), probability of the predicted class.
        correct: bool (N,).
        target: Accuracy of the images with at least this confidence, in (0, 1).

    Raises:
        UserError: no threshold reaches the target.
    """
    ordered, order = confidence.sort(descending=True)
    accuracy = correct[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_of_ties = torch.cat([ordered[1:] < ordered[:-1], torch.tensor([True])])
    reached = torch.nonzero((accuracy >= target) & last_of_ties)
    if not len(reached):
        raise UserError(f"no confidence threshold reaches an accuracy of {target:.2%} on val: lower --target_accuracy")
    last = int(reached[-1])
    # Halfway to the next lower confidence, so that rounding does not matter; below the lowest, by more than float32
    # rounding.
    following = ordered[last + 1] if last + 1 < len(ordered) else ordered[last] - 2e-6
    return float(ordered[last] + following) / 2


def _coverage(correct: Tensor, confident: Tensor, threshold: float) -> str:
    count, hits = int(confident.sum()), int(correct[confident].sum())
    if not count:
        return f"no image reaches the confidence threshold {threshold:.4f}"
    low, high = (f"{bound:.2%}" for bound in wilson_interval(hits, count))
    accuracy = f"accuracy {hits / count:.2%} on these (95 % confidence interval {low} to {high})"
    return f"{count / len(correct):.2%} of the images reach the confidence threshold {threshold:.4f}; {accuracy}"
