"""The command `robustness`: what is left of accuracy when images are not as they were in training."""

from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from project.audit.corruptions import CORRUPTIONS, MOVES, corrupt
from project.audit.model import batches, logits
from project.errors import UserError
from project.files import write_table
from project.modules import Classifier
from project.runs.folder import output_folder
from project.runs.job import Trained
from project.runs.statistics import wilson_interval

ROBUSTNESS = "robustness.csv"
SEVERITIES = range(1, 6)
ATTACKS = {"fgsm": 1, "pgd": 10}  # steps of each
EPSILONS = (0.5, 1, 2, 4, 8)  # most change of a channel by an attack, of 255, in the place of severities


def robustness(trained: Trained, images: int = 1000) -> None:
    """Measure accuracy on corrupted, shifted, rotated and attacked test images; robustness.csv in the model's run.

    Args:
        trained: The classifier and the images.
        images: Use at most this many, evenly mixed.

    Raises:
        UserError: no images wanted; see also `Trained.load`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    trained.load(labeled=True)
    model, data = trained.module.requires_grad_(False), trained.data
    parts = list(batches(trained, data.test_split, images))
    total = sum(len(label) for _, label in parts)
    clean = _accuracy(model, parts)
    low, high = wilson_interval(round(clean * total), total)
    print(f"\n{total:,} images of the {data.test_split} split of {data.folder}; clean accuracy {clean:.2%}")
    print(f"(on other images of this kind {low:.1%} to {high:.1%}, and the figures below about as uncertain)\n")
    print(f"{'accuracy at severity':<22}{''.join(f'{severity:>8}' for severity in SEVERITIES)}{'mean':>8}")
    rows: list[dict[str, Any]] = [{"kind": "clean", "name": "clean", "severity": 0, "accuracy": clean}]

    def add(kind: str, name: str, found: list[float]) -> None:
        for severity, accuracy in zip(SEVERITIES, found, strict=True):
            rows.append({"kind": kind, "name": name, "severity": severity, "accuracy": accuracy})
        print(f"{name:<22}{''.join(f'{each:>8.1%}' for each in found)}{fmean(found):>8.1%}", flush=True)

    for kind, changes in (("corruption", CORRUPTIONS), ("move", MOVES)):
        for name, change in changes.items():
            add(kind, name, [_accuracy(model, [(corrupt(x, change, s), y) for x, y in parts]) for s in SEVERITIES])
        if kind == "corruption":
            print(f"{'mean of corruptions':<62}{fmean(row['accuracy'] for row in rows[1:]):>8.1%}\n")
    print(f"\n{'changed by, of 255':<22}{''.join(f'{epsilon:>8}' for epsilon in EPSILONS)}")
    for name, steps in ATTACKS.items():
        add("attack", name, _under_attack(model, parts, steps))
    file = output_folder(trained.checkpoint) / ROBUSTNESS
    write_table(file, [{**row, "images": total, "folder": str(data.folder)} for row in rows])
    print(f"\nan attack of 0 % leaves no image right; a stronger one may find more than these do\n{file}")


def _accuracy(model: Classifier, parts: list[tuple[Tensor, Tensor]]) -> float:
    return float(torch.cat([logits(model, image).argmax(1) == label for image, label in parts]).double().mean())


def _under_attack(model: Classifier, parts: list[tuple[Tensor, Tensor]], steps: int) -> list[float]:
    """Accuracy by epsilon. What a small change misleads counts as misled by larger ones, which allow it too."""
    left = torch.zeros(len(EPSILONS))
    for image, label in parts:
        right = logits(model, image).argmax(1) == label
        for place, epsilon in enumerate(EPSILONS):
            image, label = image[right], label[right]
            if not len(label):
                break
            right = logits(model, attack(model, image / 255, label, epsilon / 255, steps)).argmax(1) == label
            left[place] += right.sum().cpu()
    total = sum(len(label) for _, label in parts)
    return [float(count) / total for count in left]


def attack(model: Classifier, image: Tensor, label: Tensor, epsilon: float, steps: int) -> Tensor:
    """Images, float (N, 3, H, W) in [0, 1], that raise the loss, no channel changed by more than `epsilon`."""
    # One step is FGSM (Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015), several are PGD from a
    # random start (Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018).
    low, high = (image - epsilon).clamp(min=0), (image + epsilon).clamp(max=1)
    draws = torch.Generator(image.device).manual_seed(steps)
    x = image if steps == 1 else low + torch.rand(image.shape, generator=draws, device=image.device) * (high - low)
    size = epsilon if steps == 1 else 2.5 * epsilon / steps
    for _ in range(steps):
        x = x.detach().requires_grad_()
        with model.trainer.precision_plugin.forward_context():
            scores = model(x)
        loss = F.cross_entropy(scores.float(), label, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x + size * gradient.sign()).clamp(low, high)
    return x.detach()
