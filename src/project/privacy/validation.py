"""Validation of configurations that would void the differential privacy guarantee."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn

from project.callbacks import NonFiniteGuard
from project.datamodules.images.augment import augment
from project.errors import UserError
from project.interface import Batch, ImageInput, data_of, module_of
from project.privacy.poisson import PoissonBatchSampler


def validate(trainer: L.Trainer, delta: float) -> None:
    """Raise a UserError if the configuration voids the privacy guarantee for images of the train split."""
    if not isinstance(inputs := data_of(trainer).description.input, ImageInput):
        raise UserError(f"DifferentialPrivacy is for images, and the data has {inputs.kind}s: train without it")
    for violation in _violations(trainer, delta):
        raise UserError(f"no privacy guarantee: {violation}")


def _violations(trainer: Any, delta: float) -> Iterator[str]:
    model, data = module_of(trainer), trainer.datamodule
    classes = data_of(trainer).description.target.outputs
    images = data.split_sizes()["train"]
    if delta <= 0 or delta * images >= 1:
        yield f"delta {delta:g} must be above 0 and below 1 / {images:,} images: use e.g. {0.1 / images:.0e}"
    if trainer.world_size > 1:
        yield "several devices would each add noise, which the accounting does not cover: use --trainer.devices 1"
    if trainer.precision not in ("32-true", "64-true"):
        yield (
            f"with precision {trainer.precision} the rounding error of gradients exceeds the bound of clipping: use"
            " --trainer.precision 32-true"
        )
    if not isinstance(data.sampler and data.sampler(1, 1, 1), PoissonBatchSampler) or trainer.overfit_batches:
        yield (
            "the accounting requires Poisson sampling: use --data.sampler project.privacy.PoissonBatchSampler, without"
            " trainer.overfit_batches"
        )
    if data.channel_statistics != "fixed":
        yield "the channel statistics are computed from the images without noise: use --data.channel_statistics fixed"
    if model.hparams["class_weights"] == "balanced":
        yield "class weights `balanced` are computed from the train split: use numbers, or remove model.class_weights"
    if hasattr(model.net, "init_from_images"):
        yield f"{type(model.net).__name__} initializes weights from the images without noise: choose another model.net"
    if trainer.gradient_clip_val:
        yield "gradients are clipped per image by max_grad_norm: remove trainer.gradient_clip_val"
    if model.hparams["compile"]:
        yield "per-sample gradients are not available for a compiled network: remove model.compile"
    if model.hparams["freeze_epochs"] > 0:
        yield "layers must be frozen in all epochs or none: use --model.freeze_epochs -1 or 0"
    if isinstance(trainer.optimizers[0], torch.optim.LBFGS):
        yield "LBFGS evaluates the same images several times per step: use Adam or SGD"
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks):
        yield "the number of batches per step must not change within a run: use trainer.accumulate_grad_batches"
    if any(isinstance(callback, NonFiniteGuard) and callback.nonfinite == "skip" for callback in trainer.callbacks):
        yield "skipping a step leaks information about its images: remove --guard.nonfinite skip"
    monitoring = [*trainer.callbacks, *trainer.lr_scheduler_configs]
    for monitor in {str(getattr(each, "monitor", "")) for each in monitoring}:
        if monitor.startswith("train/"):
            yield f"{monitor} is computed on the train split without noise, and must not be monitored: use a val metric"
    for transform in data.batch_transforms:
        if _mixes_images(transform, classes, data.input):
            yield f"{type(transform).__name__} mixes images: remove it from data.batch_transforms"
    if _mixes_gradients(model.loss, classes, data.sample(8).target):
        yield f"{type(model.loss).__name__} makes the gradient of an image depend on others: choose another model.loss"
    yield from _network_violations(model.net, data.input)


def _network_violations(net: nn.Module, inputs: ImageInput) -> Iterator[str]:
    from opacus.validators import ModuleValidator

    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            yield (
                f"the batch norm {name} makes each image depend on the rest of its batch: choose a network with group"
                " norm (--model.net.norm group for a ResNet), or freeze all but the head (--model.freeze_epochs -1)"
            )
    for error in ModuleValidator.validate(deepcopy(net).train(), strict=False):
        yield f"Opacus does not support {type(net).__name__} ({error})"
    device, copy = next(net.parameters()).device, deepcopy(net)
    one = torch.randn(4, inputs.channels, *inputs.size, generator=torch.Generator().manual_seed(0)).to(device)
    other = torch.cat([3 * one[:1].flip(2) + 1, one[1:]])
    before, after = (_seeded(lambda x=x: deepcopy(net)(x)) for x in (one, other))
    _seeded(lambda: copy(one))
    for (name, old), new in zip(net.named_buffers(), copy.buffers(), strict=True):
        if not torch.equal(old, new):
            yield f"{type(net).__name__} stores image statistics in its buffer {name}: choose another network"
    if not torch.allclose(before[1:], after[1:], rtol=1e-3, atol=1e-4, equal_nan=True):
        yield f"the outputs of {type(net).__name__} depend on the rest of the batch: choose another network"


def _mixes_images(transform: nn.Module, classes: int, inputs: ImageInput) -> bool:
    """Return True if changing the first image or its label changes the other samples."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(256, (8, inputs.channels, *inputs.size), generator=generator, dtype=torch.uint8)
    other = torch.cat([255 - one[:1], one[1:]])
    label, index = torch.arange(8) % classes, torch.arange(8)
    changed = torch.cat([(label[:1] + 1) % classes, label[1:]])

    def augmented(image: torch.Tensor, label: torch.Tensor, seed: int) -> Any:
        return _seeded(lambda: augment(Batch(image, label, index), [deepcopy(transform)], classes), seed)

    for seed in range(8):  # transforms may be random
        before, after = augmented(one, label, seed), augmented(other, changed, seed)
        if not all(torch.allclose(x[1:].float(), y[1:].float(), atol=1e-4) for x, y in zip(before, after, strict=True)):
            return True
    return False


def _mixes_gradients(loss: nn.Module, outputs: int, target: torch.Tensor) -> bool:
    """Return True if changing the first sample changes the gradients of the others."""
    one = torch.randn(len(target), outputs, generator=torch.Generator().manual_seed(0))
    other, changed = torch.cat([-3 * one[:1], one[1:]]), torch.cat([target[-1:], target[1:]])

    def gradients(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        total = deepcopy(loss).cpu()(outputs.requires_grad_(), target)
        return torch.autograd.grad(total, outputs)[0][1:]

    return not torch.allclose(gradients(one, target), gradients(other, changed), atol=1e-6)


@torch.no_grad()
def _seeded(function: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function()
