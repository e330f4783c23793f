"""The command `prune`: structured pruning of a trained network."""

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
    """Remove the channels of least magnitude from a trained network, for fine-tuning by `fit`.

    Coupled layers are pruned together, by the magnitude of their channels as a group. Fang et al., DepGraph: Towards
    Any Structural Pruning, 2023.

    Args:
        trained: The model.
        ratio: Fraction of each layer's channels to remove, above 0 and below 1; the number of weights is roughly
            multiplied by (1 - ratio) squared.
        output: The checkpoint to write; by default pruned.ckpt in the run folder. A config is written next to it.

    Raises:
        UserError: If the ratio is out of range, or the forward pass depends on shapes other than those of the weights.
    """
    import torch_pruning

    if not 0 < ratio < 1:
        raise UserError(f"--ratio must be above 0 and below 1, got {ratio}")
    model, checkpoint = trained.module, trained.checkpoint
    saved = load_checkpoint(checkpoint)
    model.configure_model()
    model.load_state_dict(saved["state_dict"])
    model.cpu().float().eval()
    outputs, inputs = model.data_description.target.outputs, model.data_description.image
    spec = saved["hyper_parameters"]["net"]
    before = original = model.net
    if isinstance(original, Pruned):  # pruned before
        spec, before = spec["init_args"]["net"], original.net
    example = torch.rand(2, inputs.channels, inputs.height, inputs.width)
    smaller = copy.deepcopy(before)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    options = {"pruning_ratio": ratio, "ignored_layers": [head(smaller)]}
    try:
        torch_pruning.pruner.BasePruner(smaller, example, importance, **options).step()
    except Exception as error:  # it traces arbitrary code
        raise UserError(f"this network cannot be pruned: {error}") from error
    full = Pruned(outputs, inputs, spec, {}).net.state_dict()
    shapes = {
        name: [new if new != old else -1 for new, old in zip(value.shape, full[name].shape, strict=True)]
        for name, value in smaller.state_dict().items()
        if value.shape != full[name].shape
    }
    init_args = {"net": spec, "shapes": shapes}
    rebuilt = Pruned(outputs, inputs, **init_args).eval()
    rebuilt.net.load_state_dict(smaller.state_dict())
    problem: str | None = "its outputs are not determined by the shapes of its weights"
    try:
        with torch.inference_mode():
            if torch.allclose(smaller(example), rebuilt(example), atol=1e-4):
                problem = None
    except RuntimeError as error:
        problem = str(error).partition("\n")[0]
    if problem is not None:
        raise UserError(f"this network cannot be pruned: its forward pass fails with fewer channels ({problem})")
    model.net = rebuilt
    net = {"class_path": "project.modules.Pruned", "init_args": init_args}
    copied = (
        "datamodule_hyper_parameters",
        "data_description",
        "format_version",
        "pytorch-lightning_version",
        "epoch",
        "global_step",
    )
    pruned = {name: saved[name] for name in copied if name in saved}
    pruned |= {"hyper_parameters": {**saved["hyper_parameters"], "net": net}, "state_dict": model.state_dict()}
    file = output or output_folder(checkpoint) / "pruned.ckpt"
    DurableCheckpointIO().save_checkpoint(pruned, file)
    config = file.with_suffix(".yaml")
    write_text(config, yaml.safe_dump({"model": {"net": net, "init_from": str(file)}}, sort_keys=False))
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (original, rebuilt)]
    print(f"pruned    {file}: {sizes[1]:,} of {sizes[0]:,} parameters; fine-tune it, as its predictions are worse now:")
    run = run_folder(checkpoint)
    print(f"          python train.py fit --config {run / 'config.yaml' if run else 'CONFIG'} --config {config}")
