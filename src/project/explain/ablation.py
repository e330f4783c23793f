"""What accuracy is lost without a layer, or without one of its channels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.modules import Classifier
from project.modules.layers import layers

CHANNELS = 16  # of a layer that are tried: those whose loss is estimated to hurt most
CHUNK = 64
Row = dict[str, Any]


def ablate(model: Classifier, image: Tensor, label: Tensor) -> list[Row]:
    """Take each layer but the head out, and each of its most telling channels; return rows, the greatest loss first.

    A layer whose output has the shape of its input is skipped, as a residual block may be (Veit et al., 2016); any
    other gives zeros, and so does a channel. Images are uint8 (N, 3, H, W) on the model's device, labels int64 (N,).
    """
    accuracy, probability = _measure(model, image, label)
    rows: list[Row] = []
    for name, first, last in places_to_cut(model.net):
        for channel in (None, *_telling_channels(model, last, image[:CHUNK], label[:CHUNK])):
            with _without(first, last, channel) as how:
                without = _measure(model, image, label)
            lost = {"accuracy_lost": accuracy - without[0], "probability_lost": probability - without[1]}
            cut = {"layer": name, "channel": "" if channel is None else channel, "how": how[0]}
            rows.append({**cut, "accuracy": without[0], **lost})
    return sorted(rows, key=lambda row: (row["accuracy_lost"], row["probability_lost"]), reverse=True)


def places_to_cut(net: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
    """Return the first and the last module of each layer but the head, in order, by the name of the last."""
    names = {module: name for name, module in net.named_modules()}
    found = [layer.modules for layer in layers(net)[:-1] if layer.modules]
    return [(names[modules[-1]], modules[0], modules[-1]) for modules in found]


def channel_axis(output: Tensor) -> int:
    """Return 1 where the output is NCHW, else the last axis."""
    return 1 if output.ndim == 4 and output.shape[2] == output.shape[3] else output.ndim - 1


@contextmanager
def _without(first: nn.Module, last: nn.Module, channel: int | None) -> Iterator[list[str]]:
    """Cut a layer, or one channel; yields a list that says how, once the net has run."""
    how = ["zeroed"]
    given: list[Any] = []

    def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        given[:] = inputs[:1]

    def cut(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if channel is not None:
            axis = channel_axis(output)
            kept = torch.arange(output.shape[axis], device=output.device) != channel
            return output * kept.view(-1, *[1] * (output.ndim - 1 - axis))
        if given and isinstance(given[0], Tensor) and given[0].shape == output.shape:
            how[0] = "skipped"
            return given[0]
        return torch.zeros_like(output)

    with first.register_forward_pre_hook(remember), last.register_forward_hook(cut):
        yield how


def _telling_channels(model: Classifier, layer: nn.Module, image: Tensor, label: Tensor) -> list[int]:
    """Return the channels of most activation times gradient."""
    # Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2016.
    outputs: list[Tensor] = []
    with layer.register_forward_hook(lambda module, inputs, output: outputs.append(output)), torch.enable_grad():
        loss = F.cross_entropy(model((image / 255).requires_grad_()).float(), label, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, outputs[-1:], allow_unused=True)
    if gradient is None:
        return []
    told = (outputs[-1] * gradient).movedim(channel_axis(gradient), -1)
    told = told.reshape(len(told), -1, told.shape[-1]).sum(1).abs().mean(0)
    return cast(list[int], told.argsort(descending=True)[:CHANNELS].tolist())


@torch.no_grad()
def _measure(model: Classifier, image: Tensor, label: Tensor) -> tuple[float, float]:
    """Return the accuracy, and the mean probability of the labels."""
    logits = torch.cat([model(part).float() for part in image.split(CHUNK)])
    right = (logits.argmax(1) == label).float().mean()
    return float(right), float(logits.softmax(1).gather(1, label[:, None]).mean())


def ablation_figure(rows: list[Row]) -> Any:
    """Return bars of the accuracy that is lost without the 20 layers, and the 20 channels, that matter most."""
    from matplotlib.figure import Figure

    whole = [row for row in rows if row["channel"] == ""][:20]
    single = [row for row in rows if row["channel"] != ""][:20]
    longest = max(len(whole), len(single))
    figure = Figure(figsize=(12, 1.2 + 0.27 * longest), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, shown, title in ((left, whole, "without a layer"), (right, single, "without a channel of a layer")):
        names = [f"{row['layer']} {row['channel']}{'(skipped)' if row['how'] == 'skipped' else ''}" for row in shown]
        axes.barh(range(len(shown)), [100 * row["accuracy_lost"] for row in shown])
        axes.set_yticks(range(len(shown)), names)
        axes.set(title=title, xlabel="accuracy lost, percentage points", ylim=(longest - 0.5, -0.5))
    return figure
