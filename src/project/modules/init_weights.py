"""Starting a new run from weights that are there."""

from dataclasses import replace
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from project.errors import UserError
from project.interface import DataDescription, ImageInput
from project.modules.layers import head
from project.modules.networks.pretrained import Pretrained
from project.runs.checkpoints import load_checkpoint


def load_initial_weights(net: nn.Module, init_from: str | None, description: DataDescription) -> ImageInput | None:
    """Give a new net the weights of an earlier run, or else those that it was pretrained with elsewhere.

    Returns the input as it was normalized for these weights; None where there are none, or it is of no images.
    """
    if init_from is not None:
        known = _load_matching(net, Path(init_from), description).input
        if not (isinstance(known, ImageInput) and isinstance(description.input, ImageInput)):
            return None
        return replace(description.input, mean=known.mean, std=known.std)
    if not isinstance(net, Pretrained) or net.weights is None:
        return None
    net.load_pretrained()
    if net.pretrained_size != net.image_size:
        rank_zero_warn(f"{net.name} was trained on images of {net.pretrained_size} pixels, these have {net.image_size}")
    return replace(description.image, mean=net.pretrained_mean, std=net.pretrained_std)


def _load_matching(net: nn.Module, file: Path, description: DataDescription) -> DataDescription:
    """Copy what has the name and shape of one here, but for the head for another target; name the other tensors."""
    if not file.is_file():
        raise UserError(f"model.init_from: no such checkpoint: {file}")
    checkpoint = load_checkpoint(file)
    saved, known = checkpoint["state_dict"], DataDescription.from_dict(checkpoint["data_description"])
    there = {name.removeprefix("net."): value for name, value in saved.items() if name.startswith("net.")}
    here = net.state_dict()
    fits = {name: value for name, value in there.items() if name in here and value.shape == here[name].shape}
    anew = getattr(known.target, "class_names", None) != getattr(description.target, "class_names", None)
    if anew:
        prefix = next(name for name, module in net.named_modules() if module is head(net))
        fits = {name: value for name, value in fits.items() if name.rpartition(".")[0] != prefix}
    unlike = [name for name in {**here, **there} if name not in fits]
    other = [f"{name} ({_shape(here, name)} here, {_shape(there, name)} there)" for name in unlike]
    if not fits:
        raise UserError(
            f"model.init_from: no tensor of the net in {file} has the name and shape of one here: {other[0]}"
        )
    net.load_state_dict(fits, strict=False)
    rank_zero_info(f"init_from: {len(fits)} of {len(here)} tensors taken from {file}")
    if other:
        why = ", which knows other classes, so that the head begins anew" if anew else ""
        rank_zero_warn(f"init_from: {len(fits)} of {len(here)} tensors taken from {file}{why}; not {', '.join(other)}")
    return known


def _shape(state: dict[str, object], name: str) -> str:
    return "x".join(map(str, getattr(state[name], "shape", ()))) or "one number" if name in state else "none"
