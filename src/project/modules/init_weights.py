"""Initialization from a checkpoint or from pretrained weights."""

from pathlib import Path
from typing import cast

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from project.errors import UserError
from project.interface import DataDescription, ImageInput, Input
from project.modules.layers import head
from project.modules.networks.weights import adapt_to_channels
from project.output import pluralize
from project.runs.checkpoints import load_checkpoint


def load_initial_weights(net: nn.Module, init_from: str | None, description: DataDescription) -> Input:
    """Initialize a new network from the checkpoint `init_from` or, if that is None, its pretrained weights.

    A network with pretrained weights has a method `init_pretrained(inputs)`, which loads them and returns the input of
    the data in the form that they need.

    Returns:
        The input of the network: that of the data, e.g. with the normalization that the weights were trained with.
    """
    if init_from is not None:
        return description.input.adopt(_load_matching(net, Path(init_from), description).input)
    init = getattr(net, "init_pretrained", None)
    return cast(Input, init(description.input)) if init else description.input


def load_description(file: str) -> DataDescription:
    """Return the description of the data that the model of a checkpoint was trained on."""
    if not Path(file).is_file():
        raise UserError(f"model.init_from: no such checkpoint: {file}")
    return DataDescription.from_dict(load_checkpoint(Path(file))["data_description"])


def _load_matching(net: nn.Module, file: Path, description: DataDescription) -> DataDescription:
    """Load the tensors that match by name and shape, except the head if the targets differ; list the others.

    Returns:
        The data description in the checkpoint.
    """
    saved, state_dict = load_description(str(file)), load_checkpoint(file)["state_dict"]
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
