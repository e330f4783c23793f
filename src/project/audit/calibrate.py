"""The command `calibrate`: probabilities that can be taken at their word."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from project.audit.model import answers
from project.callbacks.describe import python_command
from project.errors import UserError
from project.interface import SPLITS
from project.modules.tasks.multiclass import Multiclass, brier
from project.output import pluralize
from project.runs.checkpoints import DurableCheckpointIO, load_checkpoint
from project.runs.job import Trained
from project.runs.statistics import BINS, wilson_interval


def calibrate(trained: Trained, target_accuracy: float | None = None) -> None:
    """Fit a temperature on val that makes probabilities mean what they say, and write it into the checkpoint.

    Args:
        trained: The classifier and the images.
        target_accuracy: Also find the probability from which val images are right so often, in (0, 1); `predict`
            then says of each image whether it reaches it.

    Raises:
        UserError: no temperature or no threshold can be found; see also `Trained.load`.
    """
    if target_accuracy is not None and not 0 < target_accuracy < 1:
        raise UserError(f"--target_accuracy must be above 0 and below 1, got {target_accuracy}")
    trained.load(labeled=True)
    data, task = trained.data, trained.module.task
    assert isinstance(task, Multiclass)
    sizes = data.split_sizes()
    if not sizes["val"]:
        raise UserError(f"{data.folder} has no val split to fit a temperature on: give ROOT/val/CLASS/IMAGE")
    seen = {split: answers(trained, split) for split in SPLITS[1:] if sizes[split]}
    before, after = float(task.temperature), fit_temperature(*seen["val"])
    print(f"\n{'':<14}{'images':>8}{'accuracy':>10}{'calibration error':>19}{'Brier':>9}{'log loss':>10}")
    losses = {}
    for split, (scores, label) in seen.items():
        accuracy = float((scores.argmax(1) == label).double().mean())
        for when, temperature in (("before", before), ("after", after)):
            probabilities = (scores / temperature).softmax(1)
            error = multiclass_calibration_error(probabilities, label, scores.shape[1], n_bins=BINS)
            losses[split, when] = float(F.cross_entropy(scores / temperature, label))
            figures = f"{float(brier(probabilities, label).mean()):>9.4f}{losses[split, when]:>10.4f}"
            print(f"{f'{split} {when}':<14}{len(label):>8,}{accuracy:>10.2%}{float(error):>19.4f}{figures}")
    if "test" not in seen:
        print("no test split: the temperature was fitted on these very images, so that after flatters it")
    elif losses["test", "after"] > losses["test", "before"]:
        print(f"worse on test: {pluralize(sizes['val'], 'val image')} may be too few to fit a temperature on")
    threshold: float | None = None
    if target_accuracy is not None:
        for split, (scores, label) in seen.items():
            sureness, predicted = (scores / after).softmax(1).max(1)
            right = predicted == label
            if threshold is None:  # val comes first
                threshold = confidence_threshold(sureness, right, target_accuracy)
            print(f"{split}: {_coverage(right, sureness >= threshold, threshold)}")
    saved = load_checkpoint(trained.checkpoint)
    if threshold is None and saved["hyper_parameters"]["confidence_threshold"] is not None:
        print("the probability that was sure is forgotten, as it was of before: --target_accuracy finds another")
    saved["state_dict"]["task.temperature"] = torch.tensor(after, dtype=torch.float32)
    saved["hyper_parameters"]["confidence_threshold"] = threshold
    DurableCheckpointIO().save_checkpoint(saved, trained.checkpoint)
    print(f"\ntemperature {after:.4f}, before {before:.4f}: written into {trained.checkpoint}, and used wherever it is")
    again = f"{python_command()} train.py test --ckpt_path {trained.checkpoint}"
    print(f"tables and report of the run are of before; anew: {again}")


def fit_temperature(scores: Tensor, label: Tensor) -> float:
    """Return the temperature of the least log loss (Guo et al., On Calibration of Modern Neural Networks, 2017)."""
    of_label = scores.gather(1, label[:, None])[:, 0]
    rivals = scores.scatter(1, label[:, None], -torch.inf).max(1).values
    if (rivals < of_label).all():
        raise UserError(
            f"all of the {pluralize(len(label), 'val image')} are right, so that no temperature can be told from them: "
            "calibrate on more images, --data.root DIR"
        )
    if (of_label - scores.mean(1)).mean() <= 0:
        raise UserError("on val the model is no better than chance: no temperature can mend that")
    # In the logarithm, so that it stays positive; the log loss has one minimum.
    logarithm = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logarithm], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scores / logarithm.exp(), label)
        loss.backward()
        return loss

    optimizer.step(closure)
    return math.exp(float(logarithm.detach()))


def confidence_threshold(sureness: Tensor, right: Tensor, target: float) -> float:
    """Return about the least probability of which the images that reach it are right in a share of `target` or more."""
    ordered, order = sureness.sort(descending=True)
    share = right[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_of_equals = torch.cat([ordered[1:] < ordered[:-1], torch.tensor([True])])
    reached = torch.nonzero((share >= target) & last_of_equals)
    if not len(reached):
        raise UserError(f"however sure the model is, less than {target:.2%} of the val images are right: aim lower")
    last = int(reached[-1])
    # Halfway to the next one, so that neither hangs on how it is rounded; without one, farther than float32 rounds.
    following = ordered[last + 1] if last + 1 < len(ordered) else ordered[last] - 2e-6
    return float(ordered[last] + following) / 2


def _coverage(right: Tensor, sure: Tensor, threshold: float) -> str:
    count, hits, reach = int(sure.sum()), int(right[sure].sum()), f"a probability of {threshold:.4f}"
    if not count:
        return f"no image reaches {reach}"
    low, high = (f"{bound:.2%}" for bound in wilson_interval(hits, count))
    share = f"{hits / count:.2%} are right (95 % interval {low} to {high})"
    return f"{count / len(right):.2%} of the images reach {reach}; of these {share}"
