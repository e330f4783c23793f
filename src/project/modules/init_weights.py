"""Initialization from a checkpoint or from pretrained weights."""

from dataclasses import replace
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from project.errors import UserError
from project.interface import DataDescription, ImageInput, Input
from project.modules.layers import head
from project.modules.networks.pretrained import Pretrained
from project.modules.networks.weights import adapt_to_channels
from project.output import pluralize
from project.runs.checkpoints import load_checkpoint


def load_initial_weights(net: nn.Module, init_from: str | None, description: DataDescription) -> ImageInput | None:
    """Initialize a new network from the checkpoint `init_from` or, if that is None, its pretrained weights.

    Returns:
        The input with the normalization that the weights were trained with; None if no weights were loaded, the inputs
        are not images, or the weights were trained on another number of channels.
    """
    if init_from is not None:
        saved = _load_matching(net, Path(init_from), description).input
        if not (isinstance(saved, ImageInput) and isinstance(description.input, ImageInput)):
            return None
        if saved.channels != description.input.channels:
            return None
        return replace(description.input, mean=saved.mean, std=saved.std)
    if not isinstance(net, Pretrained) or net.weights is None:
        return None
    net.load_pretrained()
    if set(net.size) != {net.pretrained_size}:
        size = net.size[0] if net.size[0] == net.size[1] else [*net.size]
        rank_zero_warn(
            f"{net.name} was pretrained on images of {net.pretrained_size} pixels, but data.image_size is {size}"
        )
    if net.channels != 3:
        rank_zero_warn(
            f"{net.name} was pretrained on RGB images; its first layer was adapted to"
            f" {pluralize(net.channels, 'channel')}"
        )
        return None
    return replace(description.image, mean=net.pretrained_mean, std=net.pretrained_std)


def _load_matching(net: nn.Module, file: Path, description: DataDescription) -> DataDescription:
    """Load the tensors that match by name and shape, except the head if the targets differ; list the others.

    Returns:
        The data description in the checkpoint.
    """
    if not file.is_file():
        raise UserError(f"model.init_from: no such checkpoint: {file}")
    checkpoint = load_checkpoint(file)
    saved = DataDescription.from_dict(checkpoint["data_description"])
    state_dict = checkpoint["state_dict"]
    source = {name.removeprefix("net."): value for name, value in state_dict.items() if name.startswith("net.")}
    target = net.state_dict()
    adapted = _adapt_first_layer(source, target, saved.input, description.input)
    matching = {name: value for name, value in source.items() if name in target and value.shape == target[name].shape}
    new_head = saved.target != description.target
    if new_head:
        prefix = next(name for name, module in net.named_modules() if module is head(net))
        matching = {name: value for name, value in matching.items() if name.rpartition(".")[0] != prefix}
    skipped = [
        f"{name} ({_shape(target, name)} in the network, {_shape(source, name)} in the checkpoint)"
        for name in {**target, **source}
        if name not in matching
    ]
    if not matching:
        raise UserError(f"model.init_from: no tensor in {file} matches the network by name and shape: {skipped[0]}")
    net.load_state_dict(matching, strict=False)
    message = f"init_from: loaded {len(matching)} of {len(target)} tensors from {file}{adapted}"
    if not skipped:
        rank_zero_info(message)
    else:
        reason = f" (new head, as the {description.target.kind} differ)" if new_head else ""
        rank_zero_warn(f"{message}{reason}; not loaded: {', '.join(skipped)}")
    return saved


def _adapt_first_layer(source: dict[str, Tensor], target: dict[str, Tensor], saved: Input, data: Input) -> str:
    """Adapt the first convolution in `source` to the channels of the data; return a description of the change."""
    if isinstance(saved, ImageInput) and isinstance(data, ImageInput) and saved.channels != data.channels:
        for name, value in source.items():
            adapted = (len(value), data.channels, *value.shape[2:]) if value.ndim == 4 else ()
            if adapted and value.shape[1] == saved.channels and name in target and target[name].shape == adapted:
                source[name] = adapt_to_channels(value, data.channels)
                return f", {name} adapted from {saved.channels} to {pluralize(data.channels, 'channel')}"
    return ""


def _shape(state: dict[str, object], name: str) -> str:
    return "x".join(map(str, getattr(state[name], "shape", ()))) or "scalar" if name in state else "missing"
