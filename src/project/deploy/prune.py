"""The command `prune`: a smaller net, by taking out the channels that weigh least."""

import copy
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from project.checkpoints import DurableCheckpointIO, load_checkpoint
from project.errors import UserError
from project.modules import Classifier
from project.modules.layers import head
from project.modules.pruned import Pruned
from project.run import home_of, run_of

KEPT = ("hyper_parameters", "datamodule_hyper_parameters", "pytorch-lightning_version", "epoch", "global_step")


def prune(model: Classifier, checkpoint: Path, ratio: float, output: Path | None) -> Path:
    """Write a checkpoint whose net has fewer channels, and the config that trains it on; returns the checkpoint.

    Layers that depend on each other lose the same channels, those of the least magnitude together. Fang et al.,
    DepGraph: Towards Any Structural Pruning, 2023. See `project.trainer.Trainer.prune`.

    Raises:
        UserError: the ratio is out of range, or the net computes with shapes that it does not take from its weights.
    """
    if not 0 < ratio < 1:
        raise UserError(f"--ratio is the share of channels to take out, above 0 and below 1; got {ratio}")
    saved = load_checkpoint(checkpoint)
    model.configure_model()
    model.load_state_dict(saved["state_dict"])
    model.cpu().float().eval()
    assert model.net is not None and model.data_description is not None
    classes, size = len(model.data_description.class_names), model.data_description.image_size
    spec = saved["hyper_parameters"]["net"]
    before = whole = model.net
    if isinstance(whole, Pruned):  # once more
        spec, before = spec["init_args"]["net"], whole.net
    example = torch.rand(2, 3, size, size)
    smaller = _pruned(before, example, ratio)
    full = Pruned(classes, size, spec, {}).net.state_dict()
    shapes = {
        name: [now if now != was else -1 for now, was in zip(value.shape, full[name].shape, strict=True)]
        for name, value in smaller.state_dict().items()
        if value.shape != full[name].shape
    }
    init_args = {"net": spec, "shapes": shapes}
    again = Pruned(classes, size, **init_args).eval()
    again.net.load_state_dict(smaller.state_dict())
    _insist_on_same(smaller, again, example)
    model.net = again
    written = {name: saved[name] for name in KEPT if name in saved}
    net = {"class_path": "project.modules.Pruned", "init_args": init_args}
    written["hyper_parameters"] = {**saved["hyper_parameters"], "net": net}
    written["state_dict"] = model.state_dict()
    file = output or home_of(checkpoint) / "pruned.ckpt"
    DurableCheckpointIO().save_checkpoint(written, file)
    config = file.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"model": {"net": net, "init_from": str(file)}}, sort_keys=False))
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in (whole, again)]
    print(f"pruned    {file}: {sizes[1]:,} of {sizes[0]:,} parameters; its answers are poor until it is trained on:")
    run = run_of(checkpoint)
    print(f"          python train.py fit --config {run / 'config.yaml' if run else 'CONFIG'} --config {config}")
    return file


def _pruned(net: nn.Module, example: Tensor, ratio: float) -> nn.Module:
    import torch_pruning

    smaller = copy.deepcopy(net)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    try:
        torch_pruning.pruner.BasePruner(
            smaller, example, importance, pruning_ratio=ratio, ignored_layers=[head(smaller)]
        ).step()
    except Exception as error:  # it traces the net, whatever that does
        raise UserError(f"this net cannot be pruned: {error}") from error
    return smaller


def _insist_on_same(smaller: nn.Module, again: nn.Module, example: Tensor) -> None:
    """See that shapes alone tell what was pruned."""
    problem: Any = "its shapes do not stand in its weights"
    try:
        with torch.inference_mode():
            if torch.allclose(smaller(example), again(example), atol=1e-4):
                return
    except RuntimeError as error:
        problem = str(error).partition("\n")[0]
    raise UserError(f"this net cannot be pruned: cut to fewer channels, it does not compute any more ({problem})")
