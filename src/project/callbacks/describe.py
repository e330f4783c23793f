"""A run in words."""

import shutil
import sys
from pathlib import Path
from shlex import quote

import lightning as L
import torch

from project.interface import data_of, module_of, time_limit
from project.machine import describe_device
from project.output import format_duration, pluralize


def describe_run(trainer: L.Trainer) -> list[str]:
    """What was found in the data, and what was chosen: net, device, precision, optimizer, batch, schedule."""
    model, data, optimizer = module_of(trainer), data_of(trainer), trainer.optimizers[0]
    inputs, sizes = data.description.input, data.split_sizes()
    splits = "  ".join(f"{split} {count:,}" for split, count in sizes.items() if count)
    stand_in = "" if sizes.get("test") else "  (no test split: val will be tested on)"
    world, most = trainer.world_size, trainer.max_epochs or -1
    parameters = sum(p.numel() for p in model.parameters())
    layout = "channels last" if model.memory_format == torch.channels_last else "channels first"
    fused = "fused " if optimizer.defaults.get("fused") else ""
    decay = max(group.get("weight_decay", 0) for group in optimizer.param_groups)
    schedule = next((type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs), "constant")
    each = f" ({data.batch_size // world:,} on each of {world} devices)" if world > 1 else ""
    device = f"{describe_device(trainer.strategy.root_device)}{f' x {world}' if world > 1 else ''}"
    epochs = pluralize(most, "epoch") if most >= 0 else "any number of epochs"
    limit = clock.time_remaining() if (clock := time_limit(trainer)) else None
    return [
        f"data      {data.folder}: {pluralize(sum(sizes.values()), inputs.kind)}, {data.description.target}; "
        f"{splits}{stand_in}",
        f"net       {type(model.net).__name__}: {parameters:,} parameters, {inputs.kind}s {inputs}".rstrip(),
        f"device    {device}, precision {trainer.precision}, {layout}{', compiled' if model.compiled else ''}",
        f"training  {fused}{type(optimizer).__name__}, learning rate {optimizer.defaults['lr']:g}, "
        f"weight decay {decay:g}, schedule {schedule}",
        f"batch     {pluralize(data.batch_size, inputs.kind)}{each} from {data.reading}, "
        f"{pluralize(int(trainer.num_training_batches), 'step')} an epoch, "
        f"at most {epochs}{f', {format_duration(limit)}' if limit else ''}",
    ]


def next_commands(run: Path, best: Path, tested: bool) -> list[str]:
    """Where the run is and what to type next."""
    command = python_command()
    return [
        f"run       {run}",
        f"curves    {command} -m tensorboard.main --logdir {quote(str(run.parent))}",
        f"{'again' if tested else 'test':<10}{command} train.py test --ckpt_path {quote(str(best))}",
        f"predict   {command} train.py predict --ckpt_path {quote(str(best))} --data.root FOLDER_OR_IMAGE",
    ]


def python_command() -> str:
    """How to call this interpreter from the current folder, so that the lines can be pasted as they are."""
    for name in ("python", "python3"):
        if (found := shutil.which(name)) and Path(found).parent == Path(sys.executable).parent:
            return name
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable
