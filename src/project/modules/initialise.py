"""Starting a new run from the weights of an earlier one."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from project.checkpoints import load_checkpoint
from project.errors import UserError


def take_weights(net: nn.Module, file: Path) -> tuple[list[float], list[float]]:
    """Copy into a net every tensor of a checkpoint's net that has the same name and shape; name the others.

    Returns the mean and std that its images were normalised by, which the weights are fitted to.

    Args:
        net: Changed in place.
        file: A checkpoint of this project.

    Raises:
        UserError: there is no such checkpoint, or nothing in it fits.
    """
    if not file.is_file():
        raise UserError(f"model.init_from: no such checkpoint: {file}")
    checkpoint = load_checkpoint(file)
    saved, description = checkpoint["state_dict"], checkpoint["hyper_parameters"]["data_description"]
    there = {name.removeprefix("net."): value for name, value in saved.items() if name.startswith("net.")}
    here = net.state_dict()
    fits = {name: value for name, value in there.items() if name in here and value.shape == here[name].shape}
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
        rank_zero_warn(f"init_from: {len(fits)} of {len(here)} tensors taken from {file}; not {', '.join(other)}")
    return description["mean"], description["std"]


def _shape(state: dict[str, object], name: str) -> str:
    return "x".join(map(str, getattr(state[name], "shape", ()))) or "one number" if name in state else "none"
