"""Attribution maps and their faithfulness."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from project.errors import UserError
from project.explain.ablation import is_downsampled
from project.explain.render import overlay
from project.modules import Classifier
from project.modules.inputs import Normalize, unit_range

Method = Literal["gradcam", "integrated_gradients", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
MIN_GRID = 4  # Grad-CAM prefers feature maps of at least this height and width: smaller ones are too coarse
CELLS, STEPS = 8, 8  # deletion and insertion curves: cells per side, steps


def attribution(
    model: Classifier, image: Tensor, target: Tensor, method: Method = "gradcam", mask: Tensor | None = None
) -> Tensor:
    """Return attribution maps, float (N, H, W): positive where pixels increase the explained output, else negative.

    The maps attribute an output of the network, e.g. the logit of a class, to the raw image, normalization included.
    `model.tta` must be `none`.

    Args:
        model: A trained model in eval mode.
        image: uint8 in [0, 255] or float in [0, 1], (N, C, H, W), on the model's device.
        target: Output to explain for each image, e.g. a class, int64 (N,).
        method: `gradcam` (see `grad_cam`); `integrated_gradients`, Sundararajan et al., Axiomatic Attribution for Deep
            Networks, 2017; `occlusion`, Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2013.
            The latter two use the mean color of the training images as baseline, and require the extra `explain`.
        mask: Pixels that are not padding, bool (N, 1, H, W); the attribution of the others is zero.

    Raises:
        UserError: Grad-CAM finds no layer with spatial feature maps.
    """
    image = unit_range(image)
    mask = torch.ones_like(image[:, :1], dtype=torch.bool) if mask is None else mask.to(image.device)
    if method == "gradcam":
        return grad_cam(model, image, target) * mask[:, 0]
    from captum.attr import IntegratedGradients, Occlusion

    baseline = torch.where(mask, mean_color(model), image)
    if method == "integrated_gradients":
        maps = IntegratedGradients(model).attribute(image, baseline, target, n_steps=32, internal_batch_size=64)
    else:
        sides = [max(1, side // 4) for side in image.shape[-2:]]
        windows, strides = (image.shape[1], *sides), (image.shape[1], *(max(1, side // 2) for side in sides))
        maps = Occlusion(model).attribute(image, windows, strides, baseline, target, perturbations_per_eval=4)
    return cast(Tensor, maps).float().sum(1).detach() * mask[:, 0]


def overlays(
    model: Classifier, image: Tensor, target: Tensor, side: int, mask: Tensor | None = None
) -> list[Image.Image] | None:
    """Return Grad-CAM overlays of images (N, C, H, W), or None if the network has no spatial feature maps.

    For `image`, `target` and `mask` see `attribution`, for `side` see `overlay`. Works within inference mode, e.g. in
    the hooks of a test.
    """
    tta, model.tta = model.tta, "none"
    try:
        with torch.inference_mode(False), torch.enable_grad():
            # Tensors created in inference mode have no autograd support: clone them.
            inputs, outputs = image.to(model.device).clone(), target.to(model.device).clone()
            maps = attribution(model, inputs, outputs, mask=mask)
        masks = [None] * len(image) if mask is None else mask
        drawn = zip(image, maps, masks, strict=True)
        return [overlay(each, heat, side, content, model.task.signed) for each, heat, content in drawn]
    except UserError:
        return None
    finally:
        model.tta = tta


def grad_cam(model: Classifier, image: Tensor, target: Tensor) -> Tensor:
    """Return the last spatial feature maps, weighted by the mean gradient of each channel: float (N, H, W).

    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, 2016; without
    the final ReLU, so that negative attribution is kept.

    The layer is found in one forward and backward pass, for any architecture: the last module with spatial outputs
    that the outputs depend on, preferably with at least 4 x 4 positions. In a vision transformer this is the norm
    before the last attention if the head reads only the class token, else the last norm.
    """
    net = model.net
    outputs: list[Tensor] = []

    def record(module: nn.Module, inputs: object, output: object) -> None:
        # Skip linear layers: their outputs, e.g. queries and keys, are intermediate values within a block.
        if isinstance(output, Tensor) and output.requires_grad and not isinstance(module, nn.Linear):
            outputs.append(output)

    with ExitStack() as hooks, torch.enable_grad():
        for module in net.modules():
            hooks.enter_context(module.register_forward_hook(record))
        all_outputs = model(image.detach().requires_grad_())  # required if the network is frozen
        score = all_outputs.gather(1, target[:, None]).sum()
    gradients = torch.autograd.grad(score, outputs, allow_unused=True)
    selected: tuple[Tensor, Tensor] | None = None
    grid, min_side = tuple(image.shape[-2:]), 0
    for output, gradient in zip(outputs, gradients, strict=True):
        if (to_nchw := _to_nchw(output, len(image), grid)) is None:
            continue
        grid = tuple(to_nchw(output).shape[-2:])
        side = min(grid)
        if side >= min_side and gradient is not None and to_nchw(gradient).any():
            selected, min_side = (to_nchw(output), to_nchw(gradient)), min(MIN_GRID, side)
    if selected:
        maps = (selected[0] * selected[1].mean((2, 3), keepdim=True)).sum(1, keepdim=True)
        return F.interpolate(maps.float(), image.shape[-2:], mode="bilinear")[:, 0].detach()
    raise UserError(
        f"Grad-CAM needs spatial feature maps that the outputs depend on, and {type(net).__name__} has none:"
        " try --methods integrated_gradients or --methods occlusion"
    )


def _to_nchw(output: Tensor, batch_size: int, grid: tuple[int, ...]) -> Callable[[Tensor], Tensor] | None:
    """Return a function that converts an output or its gradient to (N, C, h, w): `grid`, or downsampled from it.

    Supports NCHW, NHWC and tokens (N, T, C), non-spatial tokens first. Returns None for other layouts.
    """
    shape = output.shape
    if len(shape) == 4 and shape[0] == batch_size:
        if is_downsampled(shape[2:], grid):
            return lambda x: x
        if is_downsampled(shape[1:3], grid):
            return lambda x: x.permute(0, 3, 1, 2)
    prefix = shape[1] - math.prod(grid) if len(shape) == 3 and shape[0] == batch_size and max(grid) > 1 else -1
    if 0 <= prefix <= 8:
        return lambda x: x[:, prefix:].transpose(1, 2).unflatten(2, grid)
    return None


def mean_color(model: Classifier) -> Tensor:
    """Return the mean color of the training images in [0, 1], (1, C, 1, 1)."""
    return cast(Normalize, model.preprocess).mean


@torch.no_grad()
def faithfulness(
    model: Classifier, image: Tensor, attribution: Tensor, target: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the areas under the deletion and the insertion curve, each float (N,).

    Deletion removes cells of the image in order of decreasing attribution and insertion adds them in the same order;
    the curves are the probability of the class or label, in [0, 1], or the standardized value. A map is more faithful
    the smaller its deletion area and the larger its insertion area. Petsiuk et al., RISE: Randomized Input Sampling for
    Explanation of Black-box Models, 2018. Removing cells rather than pixels, as in Samek et al., Evaluating the
    Visualization of What a Deep Neural Network has Learned, 2015, makes fine maps, coarse maps and a random order
    comparable. Removed cells have the mean color of the training images, for insertion too.

    Args:
        model: A trained model in eval mode.
        image: uint8 in [0, 255] or float in [0, 1], (N, C, H, W), on the model's device.
        attribution: Float (N, H, W).
        target: Output that the maps explain for each image, int64 (N,).
        mask: Pixels that are not padding, bool (N, 1, H, W); the others are never removed.
    """
    image = unit_range(image)
    mask = torch.ones_like(image[:, :1], dtype=torch.bool) if mask is None else mask.to(image.device)
    cells = min(CELLS, image.shape[-2]), min(CELLS, image.shape[-1])
    content = F.adaptive_avg_pool2d(mask[:, 0].float(), cells)
    mean = F.adaptive_avg_pool2d(attribution * mask[:, 0], cells) / content
    order = mean.where(content > 0, -torch.inf).flatten(1).argsort(1, descending=True)
    rank = F.interpolate(order.argsort(1).view(-1, 1, *cells).float(), image.shape[-2:])
    removable = (content > 0).sum((1, 2)).view(-1, 1, 1, 1)
    curves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for step in range(STEPS + 1):
        top = rank < removable * step / STEPS
        for curve, visible in zip(curves, (~top, top), strict=True):
            outputs = model(torch.where(visible | ~mask, image, mean_color(model))).float()
            curve.append(model.task.attribution_scores(outputs).gather(1, target[:, None])[:, 0])
    deletion, insertion = (torch.trapezoid(torch.stack(curve, 1), dx=1 / STEPS, dim=1) for curve in curves)
    return deletion, insertion


def random_attribution(image: Tensor, seed: int = 0) -> Tensor:
    """Return random maps for images (N, C, H, W), float (N, H, W): the baseline for `faithfulness`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(image), *image.shape[-2:], generator=generator).to(image.device)
