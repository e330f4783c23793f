"""What the net has learnt to see: filters, feature maps, and where it puts images."""

from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from project.explain.ablation import channel_axis, places_to_cut
from project.explain.render import enlarge, image_grid
from project.modules import Classifier
from project.modules.layers import head
from project.output import printable

LAYERS, CHANNELS = 6, 8  # rows and columns of the picture of feature maps
FILTERS, PER_ROW = 256, 16  # most filters in a picture, and in one row of it
SPRITE = 1536  # height and width, in pixels, of the picture that holds the thumbnails of all embedded images


def filters_image(net: nn.Module) -> Image.Image | None:
    """Return the first convolution's filters in color, by channel, each from its darkest to its brightest; or None."""
    convolutions = (m.weight.detach() for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    weights = next(convolutions, None)
    if weights is None:
        return None
    low, high = weights.amin((1, 2, 3), keepdim=True), weights.amax((1, 2, 3), keepdim=True)
    shades = ((weights - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8).cpu()
    side = -(-48 // shades.shape[-1]) * shades.shape[-1]
    pictures = (Image.fromarray(shade.permute(1, 2, 0).numpy()) for shade in shades[:FILTERS])
    tiles = [(str(i), picture.resize((side, side), Image.Resampling.NEAREST)) for i, picture in enumerate(pictures)]
    return image_grid([tiles[i : i + PER_ROW] for i in range(0, len(tiles), PER_ROW)])


@torch.no_grad()
def feature_maps_image(model: Classifier, image: Tensor) -> Image.Image | None:
    """Return the layers' most active channels for uint8 (3, H, W), first layer on top; None of a net without places."""
    found: list[tuple[str, Tensor]] = []
    with ExitStack() as hooks:
        for name, _, layer in places_to_cut(model.net):

            def keep(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                if output.ndim == 4 and min((maps := output.movedim(channel_axis(output), 1)).shape[2:]) > 1:
                    found.append((name, maps[0].float().cpu()))

            hooks.enter_context(layer.register_forward_hook(keep))
        model(image[None])
    if not found:
        return None
    chosen = torch.linspace(0, len(found) - 1, min(LAYERS, len(found))).round().int().tolist()
    rows = []
    for name, maps in (found[number] for number in chosen):
        channels = maps.abs().mean((1, 2)).argsort(descending=True)[:CHANNELS].tolist()
        shown = [(f"{channel} of {name}", _shade(maps[channel])) for channel in channels]
        rows.append([("image", enlarge(image, 128).resize((128, 128))), *shown])
    return image_grid(rows)


def _shade(values: Tensor) -> Image.Image:
    """Return one channel, float (H, W), as a picture from its lowest in dark to its highest in bright."""
    import matplotlib

    values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
    colors = (matplotlib.colormaps["viridis"](values.numpy())[..., :3] * 255).astype("uint8")
    return Image.fromarray(colors).resize((128, 128), Image.Resampling.NEAREST)


@torch.no_grad()
def embed(model: Classifier, image: Tensor) -> Tensor:
    """Return what the head is given of uint8 (N, 3, H, W): float (N, features), means over places."""
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(channel_axis(inputs[0]), -1)
        features.append(x.reshape(len(x), -1, x.shape[-1]).mean(1).float().cpu())

    with head(model.net).register_forward_pre_hook(keep):
        for part in image.split(64):
            model(part)
    return torch.cat(features)


def write_embeddings(folder: Path, features: Tensor, image: Tensor, columns: dict[str, list[str]]) -> None:
    """Write features (N, F) for TensorBoard's projector, thumbnails of uint8 (N, 3, H, W), and columns to color by."""
    from torch.utils.tensorboard.writer import SummaryWriter

    side = min(image.shape[-1], int(SPRITE / max(1, len(image)) ** 0.5))
    thumbnails = F.interpolate(image.cpu() / 255, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
    with SummaryWriter(str(folder)) as writer:
        rows = [[*map(printable, row)] for row in zip(*columns.values(), strict=True)]
        writer.add_embedding(features, rows, thumbnails, tag="features", metadata_header=list(columns))
