"""The command `robustness`: accuracy on corrupted and adversarial images."""

from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from project.audit.corruptions import CORRUPTIONS, GEOMETRIC, corrupt, supports
from project.audit.model import batches, forward
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
    """Evaluate accuracy on corrupted, shifted, rotated and adversarial test images.

    Writes robustness.csv into the run of the checkpoint.

    Args:
        trained: The classifier and its dataset.
        images: Use at most this many images, sampled evenly.

    Raises:
        UserError: `images` is below 1; see also `Trained.load`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    trained.load("test")
    model, data = trained.module.requires_grad_(False), trained.data
    subset = list(batches(trained, data.test_split, images))
    total, channels = sum(len(label) for _, label in subset), subset[0][0].shape[1]
    clean = _accuracy(model, subset)
    low, high = wilson_interval(round(clean * total), total)
    print(f"\n{total:,} images of the {data.test_split} split of {data.folder}; clean accuracy {clean:.2%}")
    print(f"(95 % confidence interval {low:.1%} to {high:.1%}, of similar width for the results below)\n")
    print(f"{'accuracy at severity':<22}{''.join(f'{severity:>8}' for severity in SEVERITIES)}{'mean':>8}")
    rows: list[dict[str, Any]] = [{"kind": "clean", "name": "clean", "severity": 0, "accuracy": clean}]

    def add(kind: str, name: str, accuracies: list[float]) -> None:
        for severity, accuracy in zip(SEVERITIES, accuracies, strict=True):
            rows.append({"kind": kind, "name": name, "severity": severity, "accuracy": accuracy})
        print(f"{name:<22}{''.join(f'{each:>8.1%}' for each in accuracies)}{fmean(accuracies):>8.1%}", flush=True)

    for kind, corruptions in (("corruption", CORRUPTIONS), ("geometric", GEOMETRIC)):
        for name, each in corruptions.items():
            if not supports(name, channels):
                print(f"{name:<22}skipped: not defined for {pluralize(channels, 'channel')}")
                continue
            add(kind, name, [_accuracy(model, [(corrupt(x, each, s), y) for x, y in subset]) for s in SEVERITIES])
        if kind == "corruption":
            print(f"{'mean of corruptions':<62}{fmean(row['accuracy'] for row in rows[1:]):>8.1%}\n")
    print(f"\n{'epsilon, of 255':<22}{''.join(f'{epsilon:>8}' for epsilon in EPSILONS)}")
    for name, steps in ATTACKS.items():
        add("attack", name, _adversarial_accuracies(model, subset, steps))
    file = output_folder(trained.checkpoint) / ROBUSTNESS
    write_table(file, [{**row, "images": total, "folder": str(data.folder)} for row in rows])
    print(f"\nadversarial accuracy is an upper bound: stronger attacks may lower it\n{file}")


def _accuracy(model: Classifier, subset: list[tuple[Tensor, Tensor]]) -> float:
    return float(torch.cat([forward(model, image).argmax(1) == label for image, label in subset]).double().mean())


def _adversarial_accuracies(model: Classifier, subset: list[tuple[Tensor, Tensor]], steps: int) -> list[float]:
    """Return the accuracy at each epsilon; an image misclassified at one epsilon counts as such at larger ones."""
    hits = torch.zeros(len(EPSILONS))
    for image, label in subset:
        correct = forward(model, image).argmax(1) == label
        for i, epsilon in enumerate(EPSILONS):
            image, label = image[correct], label[correct]
            if not len(label):
                break
            adversarial = attack(model, unit_range(image), label, epsilon / 255, steps)
            correct = forward(model, adversarial).argmax(1) == label
            hits[i] += correct.sum().cpu()
    total = sum(len(label) for _, label in subset)
    return [float(count) / total for count in hits]


def attack(model: Classifier, image: Tensor, label: Tensor, epsilon: float, steps: int) -> Tensor:
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
            logits = model(x)
        loss = F.cross_entropy(logits.float(), label, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x + step_size * gradient.sign()).clamp(low, high)
    return x.detach()
