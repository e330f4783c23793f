"""What would void the guarantee of differential privacy."""

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
from project.interface import Batch, data_of, module_of
from project.privacy.poisson import PoissonBatchSampler


def refuse(trainer: L.Trainer, delta: float) -> None:
    """See that the noise hides each image of the train split; a UserError says what would not let it."""
    for reason in _reasons(trainer, delta):
        raise UserError(f"no guarantee of privacy: {reason}")


def _reasons(trainer: Any, delta: float) -> Iterator[str]:
    model, data = module_of(trainer), trainer.datamodule
    classes = data_of(trainer).description.target.outputs
    images = data.split_sizes()["train"]
    if delta <= 0 or delta * images >= 1:
        yield f"at delta {delta:g} one of {images:,} images may be told: take a delta such as {0.1 / images:.0e}"
    if trainer.world_size > 1:
        yield "several devices would each add noise of their own, which is not accounted for: --trainer.devices 1"
    if trainer.precision not in ("32-true", "64-true"):
        yield (
            f"with precision {trainer.precision} gradients are rounded so coarsely that clipping does not bound them:"
            " --trainer.precision 32-true"
        )
    if not isinstance(data.sampler and data.sampler(1, 1, 1), PoissonBatchSampler) or trainer.overfit_batches:
        yield (
            "epsilon is counted for images that are each drawn by chance, apart from one another and from their labels:"
            " --data.sampler project.privacy.PoissonBatchSampler, and no trainer.overfit_batches"
        )
    if data.channel_statistics != "fixed":
        yield "the channel statistics are taken from the images, without noise: --data.channel_statistics fixed"
    if model.hparams["class_weights"] == "balanced":
        yield "class weights `balanced` are counted from the images: give numbers, or leave model.class_weights out"
    if hasattr(model.net, "init_from_images"):
        yield f"{type(model.net).__name__} takes first weights from the images, without noise: take another model.net"
    if trainer.gradient_clip_val:
        yield "gradients are clipped image by image, by max_grad_norm: leave trainer.gradient_clip_val out"
    if model.hparams["compile"]:
        yield "a compiled net gives no gradients of single images: leave model.compile out"
    if model.hparams["freeze_epochs"] > 0:
        yield "layers can be frozen for all epochs or none: --model.freeze_epochs -1 or 0"
    if isinstance(trainer.optimizers[0], torch.optim.LBFGS):
        yield "LBFGS looks at the same images several times a step: take Adam or SGD"
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks):
        yield "how many batches make a step may not change within a run: take trainer.accumulate_grad_batches"
    if any(isinstance(callback, NonFiniteGuard) and callback.nonfinite == "skip" for callback in trainer.callbacks):
        yield "a step that is skipped tells of its images: leave --guard.nonfinite skip out"
    watching = [*trainer.callbacks, *trainer.lr_scheduler_configs]
    for monitor in {str(getattr(each, "monitor", "")) for each in watching}:
        if monitor.startswith("train/"):
            yield f"{monitor} is measured on the images without noise, and decides what is kept or done: take val"
    for transform in data.batch_transforms:
        if _mixes_images(transform, classes, data.image_size):
            yield f"{type(transform).__name__} brings something of one image into another: leave it out"
    if _mixes_gradients(model.loss, classes, data.sample(8).target):
        yield f"{type(model.loss).__name__} lets an image change what others are learnt by: take another model.loss"
    yield from _of_net(model.net, data.image_size)


def _of_net(net: nn.Module, size: int) -> Iterator[str]:
    from opacus.validators import ModuleValidator

    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            yield (
                f"the batch norm {name} lets each image change how the others of its batch are seen: choose a net with"
                " group norm (--model.net.norm group, where it is a ResNet), or freeze all but the head"
                " (--model.freeze_epochs -1)"
            )
    for error in ModuleValidator.validate(deepcopy(net).train(), strict=False):
        yield f"Opacus cannot take {type(net).__name__} apart by images ({error})"
    device, tried = next(net.parameters()).device, deepcopy(net)
    one = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    other = torch.cat([3 * one[:1].flip(2) + 1, one[1:]])
    before, after = (_drawn(lambda x=x: deepcopy(net)(x)) for x in (one, other))
    _drawn(lambda: tried(one))
    for (name, was), now in zip(net.named_buffers(), tried.buffers(), strict=True):
        if not torch.equal(was, now):
            yield f"{type(net).__name__} keeps something of the images in its buffer {name}: choose another net"
    if not torch.allclose(before[1:], after[1:], rtol=1e-3, atol=1e-4, equal_nan=True):
        yield f"what {type(net).__name__} says of an image depends on the others of its batch: choose another net"


def _mixes_images(transform: nn.Module, classes: int, size: int) -> bool:
    """Return whether another first image changes what becomes of the others."""
    draws = torch.Generator().manual_seed(0)
    one = torch.randint(256, (8, 3, size, size), generator=draws, dtype=torch.uint8)
    other = torch.cat([255 - one[:1], one[1:]])
    label, index = torch.arange(8) % classes, torch.arange(8)
    changed = torch.cat([(label[:1] + 1) % classes, label[1:]])

    def become(image: torch.Tensor, label: torch.Tensor, seed: int) -> Any:
        return _drawn(lambda: augment(Batch(image, label, index), [deepcopy(transform)], classes), seed)

    for seed in range(8):  # tried several times, as it may draw at random
        before, after = become(one, label, seed), become(other, changed, seed)
        if not all(torch.allclose(x[1:].float(), y[1:].float(), atol=1e-4) for x, y in zip(before, after, strict=True)):
            return True
    return False


def _mixes_gradients(loss: nn.Module, outputs: int, target: torch.Tensor) -> bool:
    """Return whether another first sample changes the gradients of the others."""
    one = torch.randn(len(target), outputs, generator=torch.Generator().manual_seed(0))
    other, changed = torch.cat([-3 * one[:1], one[1:]]), torch.cat([target[-1:], target[1:]])

    def gradients(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        total = deepcopy(loss).cpu()(outputs.requires_grad_(), target)
        return torch.autograd.grad(total, outputs)[0][1:]

    return not torch.allclose(gradients(one, target), gradients(other, changed), atol=1e-6)


@torch.no_grad()
def _drawn(make: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()
