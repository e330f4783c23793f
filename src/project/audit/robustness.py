"""The command `robustness`: the headline metric, e.g. accuracy, on corrupted samples and adversarial images."""

from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from project.audit.corruptions import CORRUPTIONS, GEOMETRIC, Corruption, corrupt, supports
from project.audit.model import batches, forward, headline
from project.errors import UserError
from project.files import write_table
from project.interface import Batch, import_part
from project.modules import Classifier
from project.modules.inputs import unit_range
from project.output import pluralize
from project.runs.folder import output_folder
from project.runs.job import Trained
from project.runs.statistics import wilson_interval

ROBUSTNESS = "robustness.csv"
SEVERITIES = range(1, 6)
ATTACKS = {"fgsm": 1, "pgd": 10}  # number of steps
Change = Callable[[Batch, int], Tensor] | str
EPSILONS = (0.5, 1, 2, 4, 8)  # bound per channel, in 1/255 of the value range; the severities of an attack


def robustness(trained: Trained, images: int = 1000) -> None:
    """Evaluate a model on corrupted, shifted, rotated and adversarial test images, or on corrupted texts.

    The metric is the accuracy of classes, the F1 of labels, the MAE of values. Writes robustness.csv into
    the run of the checkpoint.

    Args:
        trained: The model and its dataset.
        images: Use at most this many images or texts, sampled evenly.

    Raises:
        UserError: `images` is below 1; see also `Trained.load`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    trained.load("test")
    model, data = trained.module.requires_grad_(False), trained.data
    inputs = model.data_description.input
    subset = list(batches(trained, data.test_split, images))
    total = sum(len(batch.index) for batch in subset)
    clean, (metric, exact) = _evaluate(model, subset), headline(model.task)
    form = ".1%" if exact.endswith("%") else exact
    samples = f"{pluralize(total, inputs.kind)} of the {data.test_split} split of {data.folder}"
    print(f"\n{samples}; clean {metric} {clean:{exact}}")
    if metric == "accuracy":
        low, high = wilson_interval(round(clean * total), total)
        print(f"(95 % confidence interval {low:.1%} to {high:.1%}, of similar width for the results below)")
    print(f"\n{f'{metric} at severity':<22}{''.join(f'{severity:>8}' for severity in SEVERITIES)}{'mean':>8}")
    rows: list[dict[str, Any]] = [{"kind": "clean", "name": "clean", "severity": 0, metric: clean}]

    def add(kind: str, name: str, values: list[float]) -> None:
        for severity, value in zip(SEVERITIES, values, strict=True):
            rows.append({"kind": kind, "name": name, "severity": severity, metric: value})
        print(f"{name:<22}{''.join(f'{each:>8{form}}' for each in [*values, fmean(values)])}", flush=True)

    own = import_part(__package__, inputs, "corruptions.corruptions")
    for kind, corruptions in (own or _image_corruptions)(trained, subset).items():
        for name, change in corruptions.items():
            if isinstance(change, str):
                print(f"{name:<22}skipped: {change}")
                continue
            changed = ([batch._replace(inputs=change(batch, severity)) for batch in subset] for severity in SEVERITIES)
            add(kind, name, [_evaluate(model, each) for each in changed])
        if kind == "corruption" and rows[1:]:
            print(f"{'mean of corruptions':<62}{fmean(row[metric] for row in rows[1:]):>8{form}}\n")
    if own is None:
        print(f"\n{'epsilon, of 255':<22}{''.join(f'{epsilon:>8}' for epsilon in EPSILONS)}")
        for name, steps in ATTACKS.items():
            add("attack", name, _evaluate_attack(model, subset, steps))
        print("\nthe results of attacks are optimistic: stronger attacks may exist")
    else:
        print(f"attacks ({', '.join(ATTACKS)}) do not apply to {inputs.kind}s, whose values cannot change slightly")
    file = output_folder(trained.checkpoint) / ROBUSTNESS
    write_table(file, [{**row, "images": total, "folder": str(data.folder)} for row in rows])
    print(file)


def _image_corruptions(trained: Trained, subset: list[Batch]) -> dict[str, dict[str, Change]]:
    """Return by kind and name functions that corrupt a batch at a severity, or the reason why one does not apply."""
    channels = subset[0].inputs.shape[1]

    def change(corruption: Corruption, batch: Batch, severity: int) -> Tensor:
        return corrupt(batch.inputs, corruption, severity)

    reason = f"not defined for {pluralize(channels, 'channel')}"
    return {
        kind: {name: partial(change, each) if supports(name, channels) else reason for name, each in of_kind.items()}
        for kind, of_kind in (("corruption", CORRUPTIONS), ("geometric", GEOMETRIC))
    }


def _evaluate(model: Classifier, subset: list[Batch]) -> float:
    outputs = [forward(model, batch.inputs) for batch in subset]
    return model.task.headline_value(torch.cat(outputs), torch.cat([batch.target for batch in subset]))


def _evaluate_attack(model: Classifier, subset: list[Batch], steps: int) -> list[float]:
    """Return the metric at each epsilon; the worst prediction of an image at one epsilon counts at larger ones too."""
    task, worst = model.task, [list[Tensor]() for _ in EPSILONS]
    for image, target, _ in subset:
        outputs = forward(model, image)
        for i, epsilon in enumerate(EPSILONS):
            left = torch.nonzero(~task.is_wrong(outputs, target))[:, 0]
            if len(left):
                x, y, before = image[left], target[left], outputs[left]
                after = forward(model, attack(model, unit_range(x), y, epsilon / 255, steps))
                worse = task.is_wrong(after, y) | (task.sample_losses(after, y) > task.sample_losses(before, y))
                outputs = outputs.index_copy(0, left, torch.where(worse[:, None], after, before))
            worst[i].append(outputs)
    true = torch.cat([batch.target for batch in subset])
    return [task.headline_value(torch.cat(each), true) for each in worst]


def attack(model: Classifier, image: Tensor, target: Tensor, epsilon: float, steps: int) -> Tensor:
    """Return adversarial images, float (N, C, H, W) in [0, 1], at most `epsilon` away in each channel.

    One step is FGSM (Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015), several are PGD with a
    random start (Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018).
    """
    low, high = (image - epsilon).clamp(min=0), (image + epsilon).clamp(max=1)
    generator = torch.Generator(image.device).manual_seed(steps)
    x = image if steps == 1 else low + torch.rand(image.shape, generator=generator, device=image.device) * (high - low)
    step_size = epsilon if steps == 1 else 2.5 * epsilon / steps
    for _ in range(steps):
        x = x.detach().requires_grad_()
        with model.trainer.precision_plugin.forward_context():
            outputs = model(x)
        loss = model.task.sample_losses(outputs.float(), target).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x + step_size * gradient.sign()).clamp(low, high)
    return x.detach()
