"""The command `calibrate`: probabilities that can be taken at their word."""

import math
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from project.audit.model import batches, logits
from project.callbacks.calibration import BINS, brier
from project.callbacks.describe import python
from project.checkpoints import DurableCheckpointIO, load_checkpoint
from project.datamodules import ImageDataModule
from project.errors import UserError
from project.interface import Split
from project.modules import Classifier
from project.report.figures import wilson
from project.trained import bring_up
from project.words import counted


def calibrate(
    trainer: L.Trainer, model: Classifier, data: ImageDataModule, checkpoint: Path, target_accuracy: float | None
) -> None:
    """Fit the temperature on val, say what it changes, and write it into the checkpoint.

    Raises:
        UserError: no temperature or no threshold can be found; see also `bring_up`.
    """
    if target_accuracy is not None and not 0 < target_accuracy < 1:
        raise UserError(f"--target_accuracy must be above 0 and below 1, got {target_accuracy}")
    bring_up(trainer, model, data, checkpoint, labelled=True)
    sizes = data.split_sizes()
    splits: list[Split] = [split for split in ("val", "test") if sizes[split]]
    if "val" not in splits:
        raise UserError(f"{data.folder} has no val split to fit a temperature on: give ROOT/val/CLASS/IMAGE")
    seen = {split: _answers(model, data, split) for split in splits}
    before = float(model.temperature)
    after = fit_temperature(*seen["val"])
    print(f"\n{'':<14}{'images':>8}{'accuracy':>10}{'calibration error':>19}{'Brier':>9}{'log loss':>10}")
    for split, (scores, label) in seen.items():
        for when, temperature in (("before", before), ("after", after)):
            print(f"{f'{split} {when}':<14}{len(label):>8,}{_figures(scores / temperature, label)}")
    if "test" in seen:
        scores, label = seen["test"]
        if F.cross_entropy(scores / after, label) > F.cross_entropy(scores / before, label):
            print(f"worse on test: {counted(sizes['val'], 'val image')} may be too few to fit a temperature on")
    else:
        print("no test split: the temperature was fitted on these very images, so that after flatters it")
    threshold = None
    if target_accuracy is not None:
        threshold = sure_above(*_sureness(*seen["val"], after), target_accuracy)
        for split, answers in seen.items():
            print(_coverage(split, *_sureness(*answers, after), threshold))
    saved = load_checkpoint(checkpoint)
    if threshold is None and saved["hyper_parameters"]["sure_above"] is not None:
        print("the probability that was sure is forgotten, as it was of before: --target_accuracy finds another")
    saved["state_dict"]["temperature"] = torch.tensor(after, dtype=torch.float32)
    saved["hyper_parameters"]["sure_above"] = threshold
    DurableCheckpointIO().save_checkpoint(saved, checkpoint)
    print(f"\ntemperature {after:.4f}, before {before:.4f}: written into {checkpoint}, and used wherever it is")
    print(f"tables and report of the run are of before; anew: {python()} train.py test --ckpt_path {checkpoint}")


def _answers(model: Classifier, data: ImageDataModule, split: Split) -> tuple[Tensor, Tensor]:
    """Logits, float64 (N, classes), and labels, int64 (N,), of a split."""
    found = [(logits(model, image).double().cpu(), label.cpu()) for image, label in batches(model, data, split)]
    scores, labels = zip(*found, strict=True)
    return torch.cat(scores), torch.cat(labels)


def fit_temperature(scores: Tensor, label: Tensor) -> float:
    """What to divide logits by for the least log loss: Guo et al., On Calibration of Modern Neural Networks, 2017.

    Args:
        scores: Logits, float64 (N, classes).
        label: int64 (N,).

    Raises:
        UserError: the least log loss is in no temperature, as all images are right, or no more than by chance.
    """
    of_label = scores.gather(1, label[:, None])
    rivals = scores.scatter(1, label[:, None], -torch.inf)
    if bool((rivals.max(1, keepdim=True).values < of_label).all()):
        raise UserError(
            f"all of the {counted(len(label), 'val image')} are right, so that no temperature can be told from them: "
            "calibrate on more images, --data.root DIR"
        )
    if float((of_label[:, 0] - scores.mean(1)).mean()) <= 0:
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


def _figures(scores: Tensor, label: Tensor) -> str:
    probabilities = scores.softmax(1)
    accuracy = float((scores.argmax(1) == label).double().mean())
    error = float(multiclass_calibration_error(probabilities, label, scores.shape[1], n_bins=BINS))
    return (
        f"{accuracy:>10.2%}{error:>19.4f}{float(brier(probabilities, label).mean()):>9.4f}"
        f"{float(F.cross_entropy(scores, label)):>10.4f}"
    )


def _sureness(scores: Tensor, label: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Probability of each prediction, float64 (N,), and whether it is right, bool (N,)."""
    sureness, predicted = (scores / temperature).softmax(1).max(1)
    return sureness, predicted == label


def sure_above(sureness: Tensor, right: Tensor, target: float) -> float:
    """The least probability such that, of the images that reach it, a share of `target` or more is right.

    Raises:
        UserError: there is none.
    """
    ordered, order = sureness.sort(descending=True)
    share = right[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_of_equals = torch.cat([ordered[1:] < ordered[:-1], torch.tensor([True])])
    reached = torch.nonzero((share >= target) & last_of_equals)
    if not len(reached):
        raise UserError(f"however sure the model is, less than {target:.2%} of the val images are right: aim lower")
    return float(ordered[reached[-1]])


def _coverage(split: str, sureness: Tensor, right: Tensor, threshold: float) -> str:
    sure = sureness >= threshold
    count, hits = int(sure.sum()), int(right[sure].sum())
    if not count:
        return f"{split}: no image reaches a probability of {threshold:.4f}"
    low, high = wilson(hits, count)
    return (
        f"{split}: {count / len(right):.2%} of the images reach a probability of {threshold:.4f}; of these"
        f" {hits / count:.2%} are right (95 % interval {low:.2%} to {high:.2%})"
    )
