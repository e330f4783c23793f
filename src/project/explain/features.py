"""Feature visualization: filters, feature maps and embeddings."""

import re
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from project.explain.ablation import ablatable_layers, channel_axis
from project.explain.render import enlarge, image_grid
from project.images.render import shown_bands, to_image
from project.modules import Classifier
from project.modules.inputs import unit_range
from project.modules.layers import head
from project.output import printable

LAYERS, CHANNELS = 6, 8  # rows and columns of the feature maps
FILTERS, PER_ROW = 256, 16  # maximum number of filters, in total and per row
SPRITE = 1536  # height and width in pixels of the sprite image with all thumbnails


def filters_image(net: nn.Module, channels: int = 3) -> Image.Image | None:
    """Return the filters of the first convolution as images, each scaled to its own range; None without one."""
    convolutions = (m.weight.detach() for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == channels)
    weights = next(convolutions, None)
    if weights is None:
        return None
    weights = shown_bands(weights)
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
    size = image.shape[-2:]
    tile = 128 * size[1] // max(size), 128 * size[0] // max(size)
    with ExitStack() as hooks:
        for name, _, layer in ablatable_layers(model.net):

            def record(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                if output.ndim == 4 and max((maps := output.movedim(channel_axis(output, size), 1)).shape[2:]) > 1:
                    feature_maps.append((name, maps[0].float().cpu()))

            hooks.enter_context(layer.register_forward_hook(record))
        model(image[None])
    if not feature_maps:
        return None
    selected = torch.linspace(0, len(feature_maps) - 1, min(LAYERS, len(feature_maps))).round().int().tolist()
    rows = []
    for name, maps in (feature_maps[number] for number in selected):
        channels = maps.abs().mean((1, 2)).argsort(descending=True)[:CHANNELS].tolist()
        tiles = [(f"{name} [{channel}]", _colorize(maps[channel], tile)) for channel in channels]
        rows.append([("image", enlarge(image, 128).resize(tile)), *tiles])
    return image_grid(rows)


def _colorize(channel: Tensor, size: tuple[int, int]) -> Image.Image:
    """Return a channel, float (H, W), as an image of this width and height, from its minimum (dark) to its maximum."""
    import matplotlib

    channel = (channel - channel.min()) / (channel.max() - channel.min()).clamp(min=1e-12)
    colors = (matplotlib.colormaps["viridis"](channel.numpy())[..., :3] * 255).astype("uint8")
    return Image.fromarray(colors).resize(size, Image.Resampling.NEAREST)


@torch.no_grad()
def embed(model: Classifier, image: Tensor) -> Tensor:
    """Return the input of the head for images (N, C, H, W), or texts, averaged over positions: (N, features)."""
    features: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(channel_axis(inputs[0], image.shape[-2:]), -1)
        features.append(x.reshape(len(x), -1, x.shape[-1]).mean(1).float().cpu())

    with head(model.net).register_forward_pre_hook(record):
        for batch in image.split(64):
            model(batch)
    return torch.cat(features)


def write_embeddings(folder: Path, features: Tensor, image: Tensor | None, columns: dict[str, list[str]]) -> None:
    """Write features (N, F), metadata columns and thumbnails of images (N, C, H, W), if any, for TensorBoard."""
    from torch.utils.tensorboard.writer import SummaryWriter

    thumbnails = None
    if image is not None:
        longest = max(image.shape[-2:])
        limit = min(longest, int(SPRITE / max(1, len(image)) ** 0.5))
        size = [max(1, side * limit // longest) for side in image.shape[-2:]]
        shown = unit_range(shown_bands(image).cpu()).expand(-1, 3, -1, -1)
        thumbnails = F.interpolate(shown, size, mode="bilinear", antialias=True).clamp(0, 1)
    with SummaryWriter(str(folder)) as writer:
        rows = [
            [re.sub(r"[\t\r\n]", " ", printable(cell)) for cell in row] for row in zip(*columns.values(), strict=True)
        ]
        writer.add_embedding(features, rows, thumbnails, tag="features", metadata_header=list(columns))
