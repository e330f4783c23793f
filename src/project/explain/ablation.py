"""Layer and channel ablation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from project.modules import Classifier
from project.modules.inputs import unit_range
from project.modules.layers import layers
from project.modules.tasks import Task

CHANNELS = 16  # channels ablated per layer: those with the highest estimated importance
BATCH_SIZE = 64
Row = dict[str, Any]


def ablate(model: Classifier, image: Tensor, target: Tensor) -> list[Row]:
    """Ablate each layer but the head, and its most important channels; return rows sorted by their effect, descending.

    The effect is the lost accuracy, or the change of the first of `Task.ablation_metrics`. A layer whose output has the
    shape of its input is skipped, like a residual block (Veit et al., 2016); the output of any other layer, or of a
    channel, is set to zero. Images are uint8 or float in [0, 1], (N, C, H, W), on the model's device, like the targets,
    which are known, as in `Batch`.
    """
    before, sign, suffix = _evaluate(model, image, target), *_direction(model.task)
    rows: list[Row] = []
    for name, first, last in ablatable_layers(model.net):
        for channel in (None, *_important_channels(model, last, image[:BATCH_SIZE], target[:BATCH_SIZE])):
            with _ablated(first, last, channel, image.shape[-2:]) as how:
                ablated = _evaluate(model, image, target)
            effects = {f"{metric}_{suffix}": sign * (before[metric] - value) for metric, value in ablated.items()}
            part = {"layer": name, "channel": "" if channel is None else channel, "how": how[0]}
            rows.append({**part, **dict([*ablated.items()][:1]), **effects})
    return sorted(rows, key=lambda row: [row[f"{metric}_{suffix}"] for metric in before], reverse=True)


def _direction(task: Task) -> tuple[int, str]:
    """Return the sign and the name of the change of a metric that gets worse."""
    return (1, "lost") if task.monitor[1] == "max" else (-1, "added")


def ablatable_layers(net: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
    """Return the name of the last module, the first module and the last module of each layer but the head, in order."""
    names = {module: name for name, module in net.named_modules()}
    modules_by_layer = [layer.modules for layer in layers(net)[:-1] if layer.modules]
    return [(names[modules[-1]], modules[0], modules[-1]) for modules in modules_by_layer]


def is_downsampled(shape: Sequence[int], size: Sequence[int]) -> bool:
    """Return True if height and width could be those of `size` divided by one stride, rounded up or down."""
    if shape[0] > size[0] or shape[1] > size[1] or max(shape) < 2:
        return False
    if size[0] == size[1]:
        return shape[0] == shape[1]
    strides = [(whole / (side + 1), whole / max(side - 1, 1e-9)) for side, whole in zip(shape, size, strict=True)]
    return max(low for low, _ in strides) < min(high for _, high in strides)


def channel_axis(output: Tensor, size: Sequence[int]) -> int:
    """Return 1 if the output for images of height and width `size` is NCHW, else the last axis."""
    is_nchw = output.ndim == 4 and (is_downsampled(output.shape[2:], size) or output.shape[2] == output.shape[3])
    return 1 if is_nchw else output.ndim - 1


@contextmanager
def _ablated(first: nn.Module, last: nn.Module, channel: int | None, size: Sequence[int]) -> Iterator[list[str]]:
    """Ablate a layer, or one channel of it, for images of height and width `size`.

    Yields a list with one element, `zeroed` or `skipped`, valid after a forward pass.
    """
    how = ["zeroed"]
    layer_input: list[Any] = []

    def record_input(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        layer_input[:] = inputs[:1]

    def ablate_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if channel is not None:
            axis = channel_axis(output, size)
            kept = torch.arange(output.shape[axis], device=output.device) != channel
            return output * kept.view(-1, *[1] * (output.ndim - 1 - axis))
        if layer_input and isinstance(layer_input[0], Tensor) and layer_input[0].shape == output.shape:
            how[0] = "skipped"
            return layer_input[0]
        return torch.zeros_like(output)

    with first.register_forward_pre_hook(record_input), last.register_forward_hook(ablate_output):
        yield how


def _important_channels(model: Classifier, layer: nn.Module, image: Tensor, target: Tensor) -> list[int]:
    """Return the channels with the largest activation times gradient."""
    # Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2016.
    outputs: list[Tensor] = []
    with layer.register_forward_hook(lambda module, inputs, output: outputs.append(output)), torch.enable_grad():
        loss = model.task.sample_losses(model(unit_range(image).detach().requires_grad_()).float(), target).sum()
    (gradient,) = torch.autograd.grad(loss, outputs[-1:], allow_unused=True)
    if gradient is None:
        return []
    importance = (outputs[-1] * gradient).movedim(channel_axis(gradient, image.shape[-2:]), -1)
    importance = importance.reshape(len(importance), -1, importance.shape[-1]).sum(1).abs().mean(0)
    return cast(list[int], importance.argsort(descending=True)[:CHANNELS].tolist())


@torch.no_grad()
def _evaluate(model: Classifier, image: Tensor, target: Tensor) -> dict[str, float]:
    """Return the metrics of the task."""
    outputs = torch.cat([model(batch).float() for batch in image.split(BATCH_SIZE)])
    return model.task.ablation_metrics(outputs, target)


def ablation_figure(rows: list[Row], task: Task) -> Any:
    """Return a bar chart of the effect, e.g. lost accuracy, of ablating the 20 most important layers and channels."""
    from matplotlib.figure import Figure

    layer_rows = [row for row in rows if row["channel"] == ""][:20]
    channel_rows = [row for row in rows if row["channel"] != ""][:20]
    longest = max(len(layer_rows), len(channel_rows))
    metric, suffix = list(rows[0])[3], _direction(task)[1]
    percent = task.headline is not None and task.headline[1].endswith("%")
    scale, unit = (100, " (percentage points)") if percent else (1, "")
    figure = Figure(figsize=(12, 1.2 + 0.27 * longest), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, shown, title in ((left, layer_rows, "layer ablation"), (right, channel_rows, "channel ablation")):
        names = [f"{row['layer']} {row['channel']}{'(skipped)' if row['how'] == 'skipped' else ''}" for row in shown]
        axes.barh(range(len(shown)), [scale * row[f"{metric}_{suffix}"] for row in shown])
        axes.set_yticks(range(len(shown)), names)
        axes.set(title=title, xlabel=f"{metric} {suffix}{unit}", ylim=(longest - 0.5, -0.5))
    return figure
