"""Feature visualization: filters, feature maps and embeddings."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from project.explain.ablation import ablatable_layers
from project.explain.layout import channel_axis
from project.explain.render import enlarge, image_grid
from project.images import to_image
from project.modules import Classifier
from project.modules.layers import head
from project.output import printable

LAYERS, CHANNELS = 6, 8  # rows and columns of the feature maps
FILTERS, PER_ROW = 256, 16  # maximum number of filters, in total and per row
SPRITE = 1536  # height and width in pixels of the sprite image with all thumbnails


def filters_image(net: nn.Module) -> Image.Image | None:
    """Return the filters of the first convolution as images, each scaled to its own range; None without one."""
    convolutions = (m.weight.detach() for m in net.modules() if isinstance(m, nn.Conv2d))
    weights = next(convolutions, None)
    if weights is None:
        return None
    low, high = weights.amin((1, 2, 3), keepdim=True), weights.amax((1, 2, 3), keepdim=True)
    scaled = ((weights - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8).cpu()
    side = -(-48 // scaled.shape[-1]) * scaled.shape[-1]
    images = (to_image(kernel.numpy()) for kernel in scaled[:FILTERS])
    tiles = [(str(i), image.resize((side, side), Image.Resampling.NEAREST)) for i, image in enumerate(images)]
    return image_grid([tiles[i : i + PER_ROW] for i in range(0, len(tiles), PER_ROW)])


@torch.no_grad()
def feature_maps_image(model: Classifier, image: Tensor) -> Image.Image | None:
    """Return the most active channels of each layer for an image (C, H, W), first layer on top; None without any."""
    feature_maps: list[tuple[str, Tensor]] = []
    height, width = image.shape[1:]
    scale = 128 / max(height, width)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    with ExitStack() as hooks:
        for name, _, layer in ablatable_layers(model.net):

            def record(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                axis = channel_axis(output, (height, width))
                if output.ndim == 4 and min((maps := output.movedim(axis, 1)).shape[2:]) > 1:
                    feature_maps.append((name, maps[0].float().cpu()))

            hooks.enter_context(layer.register_forward_hook(record))
        model(image[None])
    if not feature_maps:
        return None
    selected = torch.linspace(0, len(feature_maps) - 1, min(LAYERS, len(feature_maps))).round().int().tolist()
    rows = []
    for name, maps in (feature_maps[number] for number in selected):
        channels = maps.abs().mean((1, 2)).argsort(descending=True)[:CHANNELS].tolist()
        tiles = [(f"{name} [{channel}]", _colorize(maps[channel], shown)) for channel in channels]
        rows.append([("image", enlarge(image, 128).resize(shown)), *tiles])
    return image_grid(rows)


def _colorize(channel: Tensor, size: tuple[int, int]) -> Image.Image:
    """Return a channel, float (H, W), as an image, scaled from its minimum (dark) to its maximum (bright)."""
    import matplotlib

    channel = (channel - channel.min()) / (channel.max() - channel.min()).clamp(min=1e-12)
    colors = (matplotlib.colormaps["viridis"](channel.numpy())[..., :3] * 255).astype("uint8")
    return Image.fromarray(colors).resize(size, Image.Resampling.NEAREST)


@torch.no_grad()
def embed(model: Classifier, image: Tensor) -> Tensor:
    """Return the input of the head for images (N, C, H, W), averaged over positions: float (N, features)."""
    features: list[Tensor] = []
    size = (image.shape[2], image.shape[3])

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(channel_axis(inputs[0], size), -1)
        features.append(x.reshape(len(x), -1, x.shape[-1]).mean(1).float().cpu())

    with head(model.net).register_forward_pre_hook(record):
        for batch in image.split(64):
            model(batch)
    return torch.cat(features)


def write_embeddings(folder: Path, features: Tensor, image: Tensor, columns: dict[str, list[str]]) -> None:
    """Write features (N, F), thumbnails of images (N, C, H, W) and metadata columns for the TensorBoard projector."""
    from torch.utils.tensorboard.writer import SummaryWriter

    side = min(image.shape[-1], int(SPRITE / max(1, len(image)) ** 0.5))
    rgb = torch.stack([torch.from_numpy(np.array(to_image(each.cpu().numpy()))).permute(2, 0, 1) for each in image])
    thumbnails = F.interpolate(rgb / 255, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
    with SummaryWriter(str(folder)) as writer:
        rows = [[*map(printable, row)] for row in zip(*columns.values(), strict=True)]
        writer.add_embedding(features, rows, thumbnails, tag="features", metadata_header=list(columns))
