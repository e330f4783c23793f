"""What the net has learnt to see: filters, feature maps, and where it puts images."""

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from project.explain.ablation import channel_axis, places_to_cut
from project.explain.pictures import enlarge, page
from project.modules import Classifier
from project.modules.layers import head
from project.words import legible

LAYERS, CHANNELS = 6, 8
"""Rows and columns of the picture of feature maps."""
FILTERS, PER_ROW = 256, 16
"""Most filters in a picture, and in one row of it."""
SPRITE = 1536
"""Height and width, in pixels, of the picture that holds the thumbnails of all embedded images."""


def filters_picture(net: nn.Module) -> Image.Image | None:
    """The filters of the first convolution in colour, each from its own darkest to its brightest; None without one.

    Above each stands its channel, by which the table of importance calls it.
    """
    convolutions = (m.weight.detach() for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    weights = next(convolutions, None)
    if weights is None:
        return None
    low, high = weights.amin((1, 2, 3), keepdim=True), weights.amax((1, 2, 3), keepdim=True)
    shades = ((weights - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8).cpu()
    side = -(-48 // shades.shape[-1]) * shades.shape[-1]
    tiles = [
        (str(channel), Image.fromarray(shade.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.NEAREST))
        for channel, shade in enumerate(shades[:FILTERS])
    ]
    return page([tiles[i : i + PER_ROW] for i in range(0, len(tiles), PER_ROW)])


@torch.no_grad()
def feature_maps_picture(model: Classifier, image: Tensor) -> Image.Image | None:
    """Up to 6 layers of the net, the first on top, each with its 8 most active channels; None without places.

    Args:
        model: A trained classifier, outside training.
        image: uint8 (3, H, W), on the model's device.
    """
    found: list[tuple[str, Tensor]] = []
    hooks = []
    for name, _, layer in places_to_cut(cast(nn.Module, model.net)):

        def keep(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
            if output.ndim == 4 and min(output.movedim(channel_axis(output), 1).shape[2:]) > 1:
                found.append((name, output[0].movedim(channel_axis(output) - 1, 0).float().cpu()))

        hooks.append(layer.register_forward_hook(keep))
    try:
        model(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return None
    chosen = torch.linspace(0, len(found) - 1, min(LAYERS, len(found))).round().int().tolist()
    rows = []
    for number in chosen:
        name, maps = found[number]
        channels = maps.abs().mean((1, 2)).argsort(descending=True)[:CHANNELS].tolist()
        shown = [(f"{channel} of {name}", _shade(maps[channel])) for channel in channels]
        rows.append([("image", enlarge(image, 128).resize((128, 128))), *shown])
    return page(rows)


def _shade(values: Tensor) -> Image.Image:
    """One channel, float (H, W), from its lowest in dark to its highest in bright."""
    import matplotlib

    values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
    colours = (matplotlib.colormaps["viridis"](values.numpy())[..., :3] * 255).astype("uint8")
    return Image.fromarray(colours).resize((128, 128), Image.Resampling.NEAREST)


@torch.no_grad()
def embed(model: Classifier, image: Tensor) -> Tensor:
    """What the head is given, float (N, features), the mean over places where there are any.

    Args:
        model: A trained classifier, outside training.
        image: uint8 (N, 3, H, W), on the model's device.
    """
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        x = x.movedim(channel_axis(x), -1)
        features.append(x.reshape(len(x), -1, x.shape[-1]).mean(1).float().cpu())

    hook = head(cast(nn.Module, model.net)).register_forward_pre_hook(keep)
    try:
        for part in image.split(64):
            model(part)
    finally:
        hook.remove()
    return torch.cat(features)


def write_embeddings(folder: Path, features: Tensor, image: Tensor, columns: dict[str, list[str]]) -> None:
    """Write features for TensorBoard's projector into a folder, with thumbnails and columns to colour by.

    Args:
        folder: Of the run.
        features: Float (N, features).
        image: uint8 (N, 3, H, W).
        columns: N entries each, by name.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    side = min(image.shape[-1], int(SPRITE / max(1, len(image)) ** 0.5))
    thumbnails = F.interpolate(image.cpu() / 255, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
    with SummaryWriter(str(folder)) as writer:
        rows = [[*map(legible, row)] for row in zip(*columns.values(), strict=True)]
        writer.add_embedding(features, rows, thumbnails, tag="features", metadata_header=list(columns))
