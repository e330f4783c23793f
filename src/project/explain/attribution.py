"""Maps of where in an image the evidence for a class lies, and whether a map is true to the net."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from project.errors import UserError
from project.explain.render import overlay
from project.modules import Classifier
from project.modules.inputs import Normalize

Method = Literal["gradcam", "integrated_gradients", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
FEWEST = 4  # Grad-CAM takes a layer of fewer places, each way, only where there is no other: they tell little
CELLS, STEPS = 8, 8  # of the deletion and the insertion curve: cells each way, steps


def attribution(model: Classifier, image: Tensor, target: Tensor, method: Method = "gradcam") -> Tensor:
    """Return where the evidence lies: float (N, H, W), above zero where it speaks for the class, below where against.

    Explained is the logit, by the whole way from raw image to net, seen once: `model.tta` must be `one`.

    Args:
        model: A trained classifier, outside training.
        image: uint8 (N, 3, H, W) in [0, 255], on the model's device.
        target: Class of each image, int64 (N,).
        method: `gradcam` (see `grad_cam`); `integrated_gradients`, Sundararajan et al., Axiomatic Attribution for Deep
            Networks, 2017; `occlusion`, Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013.
            The latter two compare with the mean color of the training images, and need the extra `explain`.

    Raises:
        UserError: Grad-CAM finds no layer with places in it.
    """
    image = image / 255
    if method == "gradcam":
        return grad_cam(model, image, target)
    from captum.attr import IntegratedGradients, Occlusion

    baseline = mean_color(model).expand_as(image)
    if method == "integrated_gradients":
        parts = IntegratedGradients(model).attribute(image, baseline, target, n_steps=32, internal_batch_size=64)
    else:
        window = max(1, image.shape[-1] // 4)
        step = max(1, window // 2)
        patch, strides = (3, window, window), (3, step, step)
        parts = Occlusion(model).attribute(image, patch, strides, baseline, target, perturbations_per_eval=4)
    return cast(Tensor, parts).float().sum(1).detach()


def overlays(model: Classifier, image: Tensor, target: Tensor, side: int) -> list[Image.Image] | None:
    """Return Grad-CAM's evidence over uint8 (N, 3, H, W), in the midst of a test too; None of a net without places."""
    tta, model.tta = model.tta, "none"
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # Copies, as what was made under inference mode cannot be differentiated.
            maps = attribution(model, image.to(model.device).clone(), target.to(model.device).clone())
        return [overlay(*pair, side) for pair in zip(image, maps, strict=True)]
    except UserError:
        return None
    finally:
        model.tta = tta


def grad_cam(model: Classifier, image: Tensor, target: Tensor) -> Tensor:
    """Return activations of the last layer with places in it, weighed by each channel's mean gradient.

    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, 2016; without
    its ReLU, so that what speaks against a class can be told from what says nothing.

    One pass finds the layer in any net: of the modules whose output has places, the last that the logits depend on at
    these places (and with at least 4 x 4 of them, where there is one). In a vision transformer that is the norm before
    the last attention, if a class token is all that the head reads, else the last norm.
    """
    net = model.net
    outputs: list[Tensor] = []

    def record(module: nn.Module, inputs: object, output: object) -> None:
        # A linear layer's channels, such as queries beside keys, are on the way from one layer's to the next's.
        if isinstance(output, Tensor) and output.requires_grad and not isinstance(module, nn.Linear):
            outputs.append(output)

    with ExitStack() as hooks, torch.enable_grad():
        for module in net.modules():
            hooks.enter_context(module.register_forward_hook(record))
        logits = model(image.requires_grad_())  # else nothing is recorded of a net that is frozen
        score = logits.gather(1, target[:, None]).sum()
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
        return F.interpolate(weighed.float(), image.shape[-2:], mode="bilinear")[:, 0].detach()
    raise UserError(
        f"Grad-CAM needs a layer with places in it, and {type(net).__name__} has none that its logits depend on:"
        " try --methods integrated_gradients or --methods occlusion"
    )


def _grid(output: Tensor, images: int, side: int) -> Callable[[Tensor], Tensor] | None:
    """Return what brings an output, or its gradient, to (N, C, s, s), s at most `side`; None if it has no places.

    It is NCHW, NHWC, or tokens (N, T, C), those that stand for no place first.
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


def mean_color(model: Classifier) -> Tensor:
    """Return the mean color of the training images, in [0, 1], (1, 3, 1, 1): what stands for nothing."""
    return cast(Normalize, model.preprocess).mean


@torch.no_grad()
def faithfulness(model: Classifier, image: Tensor, attribution: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas below the deletion and the insertion curve, each float (N,) in [0, 1].

    Deletion takes the image away cell by cell, those with most evidence first; the class's probability falls the
    sooner, and the area is the smaller, the truer the map. Insertion puts them in; the larger, the truer. Petsiuk et
    al., RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018. Whole cells, as in Samek et al.,
    Evaluating the Visualization of What a Deep Neural Network has Learned, 2015, are the same to fine maps, coarse ones
    and a random order; what is not there has the mean color of the training images, for insertion too.

    Args:
        model: A trained classifier, outside training.
        image: uint8 (N, 3, H, W) in [0, 255], on the model's device.
        attribution: Float (N, H, W).
        target: Class of each image, int64 (N,).
    """
    image = image / 255
    cells = min(CELLS, image.shape[-1])
    order = F.adaptive_avg_pool2d(attribution, cells).flatten(1).argsort(1, descending=True)
    rank = F.interpolate(order.argsort(1).view(-1, 1, cells, cells).float(), image.shape[-2:])
    curves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for step in range(STEPS + 1):
        first = rank < cells**2 * step / STEPS
        for curve, there in zip(curves, (~first, first), strict=True):
            probability = model(torch.where(there, image, mean_color(model))).float().softmax(1)
            curve.append(probability.gather(1, target[:, None])[:, 0])
    deletion, insertion = (torch.trapezoid(torch.stack(curve, 1), dx=1 / STEPS, dim=1) for curve in curves)
    return deletion, insertion


def random_attribution(image: Tensor, seed: int = 0) -> Tensor:
    """Return evidence that knows nothing of images (N, 3, H, W), float (N, H, W): what a map has to be better than."""
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(len(image), *image.shape[-2:], generator=draws).to(image.device)
