"""The command `calibrate`: temperature scaling, and thresholds, on the val split."""

import hashlib
import os
from dataclasses import asdict, replace

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from project.audit.class_thresholds import confidence_threshold, describe_rejection, describe_sets, set_threshold
from project.audit.label_thresholds import fit_label_thresholds
from project.audit.model import predict_outputs
from project.callbacks.describe import python_command
from project.errors import UserError
from project.interface import SPLITS, ClassTarget, MultilabelTarget
from project.modules.tasks import Multiclass, Multilabel, Task
from project.modules.tasks.multiclass import brier
from project.modules.tasks.temperature import fit_temperature
from project.output import pluralize
from project.runs.checkpoints import DurableCheckpointIO, load_checkpoint
from project.runs.job import Trained
from project.runs.statistics import BINS

FOR_CLASSES, FOR_LABELS = ("target_accuracy", "coverage"), ("target_precision", "target_recall")


def calibrate(
    trained: Trained,
    target_accuracy: float | None = None,
    coverage: float | None = None,
    target_precision: float | None = None,
    target_recall: float | None = None,
) -> None:
    """Fit a temperature, or the thresholds of labels, on the val split and save them in the checkpoint.

    Of classes, it fits a temperature; the thresholds below are then chosen on the half of val that was not used for it.
    Of labels, it chooses the threshold of each label, by default the one with the best F1.

    Args:
        trained: The model and its dataset.
        target_accuracy: Classes: also find the confidence threshold at which predictions reach this accuracy, in (0,
            1); `predict` then reports for each sample whether its confidence reaches the threshold.
        coverage: Classes: also find the threshold of prediction sets that contain the true class with this
            probability, in (0, 1) (split conformal prediction); `predict` then reports the set of each sample.
        target_precision: Labels: choose the threshold with the best recall at this precision, in (0, 1).
        target_recall: Labels: choose the threshold with the best precision at this recall, in (0, 1).

    Raises:
        UserError: no temperature or no threshold can be found, or an option is not for this model; see also
            `Trained.load`.
    """
    task, data = trained.module.task, trained.data
    values = (target_accuracy, coverage, target_precision, target_recall)
    options = zip((*FOR_CLASSES, *FOR_LABELS), values, strict=True)
    given = {name: value for name, value in options if value is not None}
    _check(task, given)
    trained.load("validate")
    sizes = data.split_sizes()
    if not sizes["val"]:
        raise UserError(f"{data.folder} has no val split to calibrate on: add one, as a folder ROOT/val or in a column")
    outputs = {split: predict_outputs(trained, split) for split in SPLITS[1:] if sizes[split]}
    results: dict[str, tuple[Tensor, Tensor]] = {
        split: (logits, target) for split, (logits, target, _) in outputs.items()
    }
    task.cpu()  # where the outputs are; the network does not use it
    if isinstance(task, Multilabel):
        target = replace(task.target, thresholds=fit_label_thresholds(task, results, target_precision, target_recall))
        _save(trained, target)
        return
    assert isinstance(task, Multiclass)
    fitted = kept = torch.zeros(0, dtype=torch.int64)
    logits, label = results["val"]
    if given:
        fitted, kept = _halves(trained, outputs["val"][2])
        results["val"] = logits[fitted], label[fitted]
        size, key = f"{len(fitted):,} val {task.sample}s", f"{trained.data.key}s"
        print(f"\ntemperature from {size}, thresholds from {len(kept):,} others, by a hash of {key}")
    before = float(task.temperature)
    if given and not task.is_wrong(*results["val"]).any():
        print(f"all {len(fitted):,} are predicted correctly, so no temperature can be fitted: it stays {before:g}")
    else:
        task.temperature.fill_(fit_temperature(*results["val"], task.sample))
    _print_calibration(task, before, results)
    results["val"] = logits[kept], label[kept]
    _save(trained, _class_thresholds(task, results, target_accuracy, coverage), before)


def _check(task: Task, given: dict[str, float]) -> None:
    """Raise if options are out of range, not for this task, or exclude each other."""
    for name, value in given.items():
        if not 0 < value < 1:
            raise UserError(f"--{name} must be above 0 and below 1, got {value}")
        if name not in (FOR_CLASSES if isinstance(task, Multiclass) else FOR_LABELS):
            raise UserError(f"--{name} is not for models of {task.target.kind}: leave it out")
    if len(given) > 1 and not isinstance(task, Multiclass):
        raise UserError("--target_precision and --target_recall exclude each other: give one of them")


def _halves(trained: Trained, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the val samples, int64, for the temperature and for thresholds: groups, if there are any, stay together.

    Thresholds keep their stated accuracy and coverage only on samples that the temperature was not fitted on.
    """
    index = trained.data.index
    groups = None if index is None else index.groups
    names = [trained.data.path(row) if groups is None else str(groups[row]) for row in rows.tolist()]
    order = sorted(set(names), key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    if len(order) < 2:
        unit = trained.module.task.sample
        raise UserError(f"a half of val is kept for thresholds, and val has only one {unit} or group: add some to val")
    first = set(order[: len(order) // 2])
    fitted = torch.tensor([name in first for name in names])
    return torch.nonzero(fitted)[:, 0], torch.nonzero(~fitted)[:, 0]


def _print_calibration(task: Multiclass, before: float, results: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Print the metrics of each split at the temperature before and after; the task keeps the latter."""
    after, losses = float(task.temperature), {}
    print(f"\n{'':<14}{f'{task.sample}s':>8}{'accuracy':>10}{'calibration error':>19}{'Brier':>9}{'log loss':>10}")
    for split, (logits, label) in results.items():
        accuracy = task.headline_value(logits, label)
        for when, temperature in (("before", before), ("after", after)):
            task.temperature.fill_(temperature)
            calibrated = task.calibrated(logits)
            probabilities = task.predict(calibrated)
            error = multiclass_calibration_error(probabilities, label, logits.shape[1], n_bins=BINS)
            losses[split, when] = float(task.sample_losses(calibrated, label).mean())
            figures = f"{float(brier(probabilities, label).mean()):>9.4f}{losses[split, when]:>10.4f}"
            print(f"{f'{split} {when}':<14}{len(label):>8,}{accuracy:>10.2%}{float(error):>19.4f}{figures}")
    if "test" not in results:
        print(f"no test split: the temperature was fitted on these {task.sample}s, so figures after it are optimistic")
    elif losses["test", "after"] > losses["test", "before"]:
        count = pluralize(len(results["val"][1]), f"val {task.sample}")
        print(f"log loss increased on test: {count} may be too few to fit a temperature")


def _class_thresholds(
    task: Multiclass, results: dict[str, tuple[Tensor, Tensor]], accuracy: float | None, coverage: float | None
) -> ClassTarget:
    """Return the target with the thresholds of the val samples in `results`; print what they achieve on each split."""
    target = task.target.without_thresholds()
    for split, (logits, label) in results.items():
        probabilities = task.predict(task.calibrated(logits))
        if accuracy is not None:
            confidence, correct = probabilities.max(1).values, ~task.is_wrong(logits, label)
            if target.confidence_threshold is None:  # val comes first
                target = replace(target, confidence_threshold=confidence_threshold(confidence, correct, accuracy))
            threshold = target.confidence_threshold
            assert threshold is not None
            print(f"{split}: {describe_rejection(correct, confidence >= threshold, threshold, task.sample)}")
        if coverage is not None:
            if target.set_threshold is None:
                of_label = probabilities.gather(1, label[:, None])[:, 0]
                target = replace(target, set_threshold=set_threshold(of_label, coverage, task.sample))
            scores = probabilities.float().numpy()
            print(f"{split}: {describe_sets(target, scores, label.numpy(), coverage, task.sample)}")
    return target


def _save(trained: Trained, target: ClassTarget | MultilabelTarget, before: float | None = None) -> None:
    """Save thresholds and, if there was one `before`, the temperature in the checkpoint."""
    checkpoint, task, file = load_checkpoint(trained.checkpoint), trained.module.task, trained.checkpoint
    saved = checkpoint["data_description"]["target"]["init_args"]
    for name, option in (("confidence_threshold", "target_accuracy"), ("set_threshold", "coverage")):
        if saved.get(name) is not None and getattr(target, name) is None:
            print(f"the {name.replace('_', ' ')} is reset: pass --{option} to find a new one")
    saved |= {name: value for name, value in asdict(target).items() if "threshold" in name}
    what = "thresholds"
    if isinstance(task, Multiclass):
        checkpoint["state_dict"]["task.temperature"] = task.temperature.clone()
        what = f"temperature {float(task.temperature):.4f} (before: {before:.4f})"
    DurableCheckpointIO().save_checkpoint(checkpoint, file)
    print(f"\n{what}, saved in {file}")
    command = f"{python_command()} train.py test --ckpt_path {file}"
    print(f"existing reports were made before calibration; to test again: {command}")
