"""The command `robustness`: the headline metric, e.g. accuracy, on corrupted and adversarial images."""

from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from project.audit.corruptions import CORRUPTIONS, GEOMETRIC, corrupt, supports
from project.audit.model import batches, forward, headline
from project.errors import UserError
from project.files import write_table
from project.modules import Classifier
from project.modules.inputs import unit_range
from project.output import pluralize
from project.runs.folder import output_folder
from project.runs.job import Trained
from project.runs.statistics import wilson_interval

ROBUSTNESS = "robustness.csv"
SEVERITIES = range(1, 6)
ATTACKS = {"fgsm": 1, "pgd": 10}  # number of steps
EPSILONS = (0.5, 1, 2, 4, 8)  # bound per channel, in 1/255 of the value range; the severities of an attack


def robustness(trained: Trained, images: int = 1000) -> None:
    """Evaluate a model on corrupted, shifted, rotated and adversarial test images.

    The metric is the accuracy of classes, the F1 of labels, the MAE of values. Writes robustness.csv into
    the run of the checkpoint.

    Args:
        trained: The model and its dataset.
        images: Use at most this many images, sampled evenly.

    Raises:
        UserError: `images` is below 1; see also `Trained.load`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    trained.load("test")
    model, data = trained.module.requires_grad_(False), trained.data
    subset = [(batch.inputs, batch.target) for batch in batches(trained, data.test_split, images)]
    total, channels = sum(len(target) for _, target in subset), subset[0][0].shape[1]
    clean, (metric, exact) = _evaluate(model, subset), headline(model.task)
    form = ".1%" if exact.endswith("%") else exact
    print(f"\n{total:,} images of the {data.test_split} split of {data.folder}; clean {metric} {clean:{exact}}")
    if metric == "accuracy":
        low, high = wilson_interval(round(clean * total), total)
        print(f"(95 % confidence interval {low:.1%} to {high:.1%}, of similar width for the results below)")
    print(f"\n{f'{metric} at severity':<22}{''.join(f'{severity:>8}' for severity in SEVERITIES)}{'mean':>8}")
    rows: list[dict[str, Any]] = [{"kind": "clean", "name": "clean", "severity": 0, metric: clean}]

    def add(kind: str, name: str, values: list[float]) -> None:
        for severity, value in zip(SEVERITIES, values, strict=True):
            rows.append({"kind": kind, "name": name, "severity": severity, metric: value})
        print(f"{name:<22}{''.join(f'{each:>8{form}}' for each in [*values, fmean(values)])}", flush=True)

    for kind, corruptions in (("corruption", CORRUPTIONS), ("geometric", GEOMETRIC)):
        for name, each in corruptions.items():
            if not supports(name, channels):
                print(f"{name:<22}skipped: not defined for {pluralize(channels, 'channel')}")
                continue
            add(kind, name, [_evaluate(model, [(corrupt(x, each, s), y) for x, y in subset]) for s in SEVERITIES])
        if kind == "corruption":
            print(f"{'mean of corruptions':<62}{fmean(row[metric] for row in rows[1:]):>8{form}}\n")
    print(f"\n{'epsilon, of 255':<22}{''.join(f'{epsilon:>8}' for epsilon in EPSILONS)}")
    for name, steps in ATTACKS.items():
        add("attack", name, _evaluate_attack(model, subset, steps))
    file = output_folder(trained.checkpoint) / ROBUSTNESS
    write_table(file, [{**row, "images": total, "folder": str(data.folder)} for row in rows])
    print(f"\nthe results of attacks are optimistic: stronger attacks may exist\n{file}")


def _evaluate(model: Classifier, subset: list[tuple[Tensor, Tensor]]) -> float:
    outputs = [forward(model, image) for image, _ in subset]
    return model.task.headline_value(torch.cat(outputs), torch.cat([target for _, target in subset]))


def _evaluate_attack(model: Classifier, subset: list[tuple[Tensor, Tensor]], steps: int) -> list[float]:
    """Return the metric at each epsilon; the worst prediction of an image at one epsilon counts at larger ones too."""
    task, worst = model.task, [list[Tensor]() for _ in EPSILONS]
    for image, target in subset:
        outputs = forward(model, image)
        for i, epsilon in enumerate(EPSILONS):
            left = torch.nonzero(~task.is_wrong(outputs, target))[:, 0]
            if len(left):
                x, y, before = image[left], target[left], outputs[left]
                after = forward(model, attack(model, unit_range(x), y, epsilon / 255, steps))
                worse = task.is_wrong(after, y) | (task.sample_losses(after, y) > task.sample_losses(before, y))
                outputs = outputs.index_copy(0, left, torch.where(worse[:, None], after, before))
            worst[i].append(outputs)
    true = torch.cat([target for _, target in subset])
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
