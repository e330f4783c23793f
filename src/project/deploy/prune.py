"""The command `prune`: a smaller net, by taking out the channels that weigh least."""

import copy
from pathlib import Path

import torch
import yaml

from project.errors import UserError
from project.files import write_text
from project.modules.layers import head
from project.modules.networks.pruned import Pruned
from project.runs.checkpoints import DurableCheckpointIO, load_checkpoint
from project.runs.folder import output_folder, run_folder
from project.runs.job import Trained


def prune(trained: Trained, ratio: float = 0.5, output: Path | None = None) -> None:
    """Take the channels out of a trained net that weigh least; the smaller net is then trained on by `fit`.

    Layers that depend on each other lose the same channels, those of the least magnitude together. Fang et al.,
    DepGraph: Towards Any Structural Pruning, 2023.

    Args:
        trained: The model.
        ratio: Share of the channels of each layer to take out, above 0 and below 1; weights go with its square.
        output: The checkpoint to write; by default pruned.ckpt in the run's folder. A config lies beside it.

    Raises:
        UserError: the ratio is out of range, or the net computes with shapes that it does not take from its weights.
    """
    import torch_pruning

    if not 0 < ratio < 1:
        raise UserError(f"--ratio is the share of channels to take out, above 0 and below 1; got {ratio}")
    model, checkpoint = trained.module, trained.checkpoint
    saved = load_checkpoint(checkpoint)
    model.configure_model()
    model.load_state_dict(saved["state_dict"])
    model.cpu().float().eval()
    outputs, inputs = model.data_description.target.outputs, model.data_description.image
    spec = saved["hyper_parameters"]["net"]
    before = whole = model.net
    if isinstance(whole, Pruned):  # once more
        spec, before = spec["init_args"]["net"], whole.net
    example = torch.rand(2, 3, inputs.height, inputs.width)
    smaller = copy.deepcopy(before)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    options = {"pruning_ratio": ratio, "ignored_layers": [head(smaller)]}
    try:
        torch_pruning.pruner.BasePruner(smaller, example, importance, **options).step()
    except Exception as error:  # it traces the net, whatever that does
        raise UserError(f"this net cannot be pruned: {error}") from error
    full = Pruned(outputs, inputs, spec, {}).net.state_dict()
    shapes = {
        name: [now if now != was else -1 for now, was in zip(value.shape, full[name].shape, strict=True)]
        for name, value in smaller.state_dict().items()
        if value.shape != full[name].shape
    }
    init_args = {"net": spec, "shapes": shapes}
    again = Pruned(outputs, inputs, **init_args).eval()
    again.net.load_state_dict(smaller.state_dict())
    problem: str | None = "its shapes do not stand in its weights"
    try:
        with torch.inference_mode():
            if torch.allclose(smaller(example), again(example), atol=1e-4):
                problem = None
    except RuntimeError as error:
        problem = str(error).partition("\n")[0]
    if problem is not None:
        raise UserError(f"this net cannot be pruned: cut to fewer channels, it does not compute any more ({problem})")
    model.net = again
    net = {"class_path": "project.modules.Pruned", "init_args": init_args}
    about = (
        "datamodule_hyper_parameters",
        "data_description",
        "format_version",
        "pytorch-lightning_version",
        "epoch",
        "global_step",
    )
    written = {name: saved[name] for name in about if name in saved}
    written |= {"hyper_parameters": {**saved["hyper_parameters"], "net": net}, "state_dict": model.state_dict()}
    file = output or output_folder(checkpoint) / "pruned.ckpt"
    DurableCheckpointIO().save_checkpoint(written, file)
    config = file.with_suffix(".yaml")
    write_text(config, yaml.safe_dump({"model": {"net": net, "init_from": str(file)}}, sort_keys=False))
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in (whole, again)]
    print(f"pruned    {file}: {sizes[1]:,} of {sizes[0]:,} parameters; its answers are poor until it is trained on:")
    run = run_folder(checkpoint)
    print(f"          python train.py fit --config {run / 'config.yaml' if run else 'CONFIG'} --config {config}")
