"""Maps of where in an image the evidence for a class lies."""

from collections.abc import Callable
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from project.errors import UserError
from project.explain.pictures import overlay
from project.modules import Classifier

Method = Literal["gradcam", "integrated_gradients", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
FEWEST = 4
"""Grad-CAM takes a layer of fewer places, each way, only where there is no other: they would not tell much."""


def evidence(model: Classifier, image: Tensor, target: Tensor, method: Method = "gradcam") -> Tensor:
    """Where the evidence lies: float (N, H, W), above zero where it speaks for the class, below where against it.

    Explained is the logit, by the whole way from raw image to net, seen once: `model.views` must be `one`.

    Args:
        model: A trained classifier, outside training.
        image: uint8 (N, 3, H, W) in [0, 255], on the model's device.
        target: Class of each image, int64 (N,).
        method: `gradcam` (see `grad_cam`); `integrated_gradients`, Sundararajan et al., Axiomatic Attribution for Deep
            Networks, 2017; `occlusion`, Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013.
            The latter two compare with the mean colour of the training images, and need the extra `explain`.

    Raises:
        UserError: Grad-CAM finds no layer with places in it.
    """
    methods = {"gradcam": grad_cam, "integrated_gradients": _integrated_gradients, "occlusion": _occlusion}
    return methods[method](model, image / 255, target).detach()


def overlays(model: Classifier, image: Tensor, target: Tensor, side: int) -> list[Image.Image] | None:
    """Grad-CAM's evidence laid over images, in the middle of a test too; None for a net without places in it.

    Args:
        model: A classifier, outside training.
        image: uint8 (N, 3, H, W) in [0, 255].
        target: Class of each image, int64 (N,).
        side: Pictures are enlarged to about this many pixels.
    """
    views, model.views = model.views, "one"
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # Copies, as what was made under inference mode cannot be differentiated.
            maps = evidence(model, image.to(model.device).clone(), target.to(model.device).clone())
        return [overlay(*pair, side) for pair in zip(image, maps, strict=True)]
    except UserError:
        return None
    finally:
        model.views = views


def grad_cam(model: Classifier, image: Tensor, target: Tensor) -> Tensor:
    """Activations of the last layer with places in it, weighed by each channel's mean gradient; see `evidence`.

    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, 2016; without
    its ReLU, so that what speaks against a class can be told from what says nothing.

    One pass finds the layer in any net: of the modules whose output has places, the last that the logits depend on at
    these places (and with at least 4 x 4 of them, where there is one). In a vision transformer that is the norm before
    the last attention, if a class token is all that the head reads, else the last norm.
    """
    net = cast(nn.Module, model.net)
    outputs: list[Tensor] = []

    def record(module: nn.Module, inputs: object, output: object) -> None:
        # A linear layer's channels, such as queries beside keys, are on the way from one layer's to the next's.
        if isinstance(output, Tensor) and output.requires_grad and not isinstance(module, nn.Linear):
            outputs.append(output)

    hooks = [module.register_forward_hook(record) for module in net.modules()]
    try:
        with torch.enable_grad():
            logits = model(image.requires_grad_())  # else nothing is recorded of a net that is frozen
            score = logits.gather(1, target[:, None]).sum()
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(score, outputs, allow_unused=True)
    found: tuple[Tensor, Tensor] | None = None
    side, fewest = image.shape[-1], 0
    for output, gradient in zip(outputs, gradients, strict=True):
        if (grid := _grid(output, len(image), side)) is None:
            continue
        side = grid(output).shape[-1]
        if side >= fewest and gradient is not None and grid(gradient).any():
            found, fewest = (grid(output), grid(gradient)), min(FEWEST, side)
    if found:
        weighed = (found[0] * found[1].mean((2, 3), keepdim=True)).sum(1, keepdim=True)
        return F.interpolate(weighed.float(), image.shape[-2:], mode="bilinear")[:, 0]
    raise UserError(
        f"Grad-CAM needs a layer with places in it, and {type(net).__name__} has none that its logits depend on:"
        " try --methods integrated_gradients or --methods occlusion"
    )


def _grid(output: Tensor, images: int, side: int) -> Callable[[Tensor], Tensor] | None:
    """What brings a module's output, or its gradient, to (N, C, s, s); None if it has no places.

    Args:
        output: NCHW, NHWC, or tokens (N, T, C), those that stand for no place first.
        images: N.
        side: Height and width of the grid before it, which no later one is larger than.
    """
    shape = output.shape
    if len(shape) == 4 and shape[0] == images:
        if 1 < shape[2] == shape[3] <= side:
            return lambda x: x
        if 1 < shape[1] == shape[2] <= side:
            return lambda x: x.permute(0, 3, 1, 2)
    if len(shape) == 3 and shape[0] == images and side > 1 and 0 <= (others := shape[1] - side**2) <= 8:
        return lambda x: x[:, others:].transpose(1, 2).unflatten(2, (side, side))
    return None


def _integrated_gradients(model: Classifier, image: Tensor, target: Tensor) -> Tensor:
    from captum.attr import IntegratedGradients

    baseline = model.mean.expand_as(image)
    parts = IntegratedGradients(model).attribute(image, baseline, target, n_steps=32, internal_batch_size=64)
    return cast(Tensor, parts).float().sum(1)


def _occlusion(model: Classifier, image: Tensor, target: Tensor) -> Tensor:
    from captum.attr import Occlusion

    window = max(1, image.shape[-1] // 4)
    step = max(1, window // 2)
    baseline = model.mean.expand_as(image)
    parts = Occlusion(model).attribute(
        image, (3, window, window), (3, step, step), baseline, target, perturbations_per_eval=4
    )
    return cast(Tensor, parts).float().sum(1)
