"""Starting a new run from weights that are there."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from project.checkpoints import load_checkpoint
from project.errors import UserError
from project.modules.layers import head
from project.modules.pretrained import Pretrained


def take_weights(
    net: nn.Module, init_from: str | None, class_names: list[str]
) -> tuple[list[float], list[float]] | None:
    """Give a new net the weights of an earlier run, or those that it was pretrained with elsewhere.

    Returns the mean and std that images were normalised by for these weights; None where there are none to take.

    Args:
        net: Changed in place.
        init_from: A checkpoint of this project; it beats what the net would be pretrained with.
        class_names: The classes of the new net; the head of a net for others is not taken.

    Raises:
        UserError: they cannot be had, or do not fit.
    """
    if init_from is not None:
        return _take_fitting(net, Path(init_from), class_names)
    if not isinstance(net, Pretrained) or net.weights is None:
        return None
    net.take_pretrained()
    if net.pretrained_size != net.image_size:
        rank_zero_warn(f"{net.name} was trained on images of {net.pretrained_size} pixels, these have {net.image_size}")
    return net.pretrained_mean, net.pretrained_std


def _take_fitting(net: nn.Module, file: Path, class_names: list[str]) -> tuple[list[float], list[float]]:
    """Copy every tensor of a checkpoint's net that has the name and shape of one here; name the others."""
    if not file.is_file():
        raise UserError(f"model.init_from: no such checkpoint: {file}")
    checkpoint = load_checkpoint(file)
    saved, description = checkpoint["state_dict"], checkpoint["hyper_parameters"]["data_description"]
    there = {name.removeprefix("net."): value for name, value in saved.items() if name.startswith("net.")}
    here = net.state_dict()
    fits = {name: value for name, value in there.items() if name in here and value.shape == here[name].shape}
    anew = description["class_names"] != class_names
    if anew:
        prefix = next(name for name, module in net.named_modules() if module is head(net))
        fits = {name: value for name, value in fits.items() if name.rpartition(".")[0] != prefix}
    other = [
        f"{name} ({_shape(here, name)} here, {_shape(there, name)} there)"
        for name in {**here, **there}
        if name not in fits
    ]
    if not fits:
        raise UserError(
            f"model.init_from: no tensor of the net in {file} has the name and shape of one here: {other[0]}"
        )
    net.load_state_dict(fits, strict=False)
    rank_zero_info(f"init_from: {len(fits)} of {len(here)} tensors taken from {file}")
    if other:
        why = ", which knows other classes, so that the head begins anew" if anew else ""
        rank_zero_warn(f"init_from: {len(fits)} of {len(here)} tensors taken from {file}{why}; not {', '.join(other)}")
    return description["mean"], description["std"]


def _shape(state: dict[str, object], name: str) -> str:
    return "x".join(map(str, getattr(state[name], "shape", ()))) or "one number" if name in state else "none"
