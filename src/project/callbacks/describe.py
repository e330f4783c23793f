"""Console lines that describe a run."""

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
    """Return lines with the dataset, model, device, optimizer and batch of a run."""
    model, data, optimizer = module_of(trainer), data_of(trainer), trainer.optimizers[0]
    inputs, sizes = data.description.input, data.split_sizes()
    splits = "  ".join(f"{split} {count:,}" for split, count in sizes.items() if count)
    note = "" if sizes.get("test") else "  (no test split: val is used for testing)"
    world, max_epochs = trainer.world_size, trainer.max_epochs or -1
    parameters = sum(p.numel() for p in model.parameters())
    layout = "channels last" if model.memory_format == torch.channels_last else "channels first"
    fused = "fused " if optimizer.defaults.get("fused") else ""
    decay = max(group.get("weight_decay", 0) for group in optimizer.param_groups)
    configs = trainer.lr_scheduler_configs
    schedule = next((f"{type(each.scheduler).__name__} per {each.interval}" for each in configs), "constant")
    per_device = f" ({data.batch_size // world:,} on each of {world} devices)" if world > 1 else ""
    device = f"{describe_device(trainer.strategy.root_device)}{f' x {world}' if world > 1 else ''}"
    epochs = f"at most {pluralize(max_epochs, 'epoch')}" if max_epochs >= 0 else "no epoch limit"
    limit = clock.time_remaining() if (clock := time_limit(trainer)) else None
    return [
        f"data      {data.folder}: {pluralize(sum(sizes.values()), inputs.kind)}, {data.description.target}; "
        f"{splits}{note}",
        *(f"          {sentence}" for sentence in data.notes),
        f"model     {type(model.net).__name__}: {parameters:,} parameters, {inputs.kind}s {inputs}".rstrip(),
        *([f"teacher   {model.teacher}"] if model.teacher else []),
        f"device    {device}, precision {trainer.precision}, {layout}{', compiled' if model.compiled else ''}",
        f"training  {fused}{type(optimizer).__name__}, learning rate {optimizer.defaults['lr']:g}, "
        f"weight decay {decay:g}, schedule {schedule}",
        *(["          no validation in these epochs, hence no best checkpoint"] if _never_validates(trainer) else []),
        f"batch     {pluralize(data.batch_size, inputs.kind)}{per_device} from {data.reading}, "
        f"{pluralize(int(trainer.num_training_batches), 'step')} per epoch, "
        f"{epochs}{f', at most {format_duration(limit)}' if limit else ''}",
    ]


def _never_validates(trainer: L.Trainer) -> bool:
    every, epochs = trainer.check_val_every_n_epoch or 1, trainer.max_epochs or -1
    return not trainer.enable_validation or every > epochs >= 0


def next_commands(run: Path, best: Path, tested: bool) -> list[str]:
    """Return lines with the run folder and the commands to run next."""
    command = python_command()
    return [
        f"run       {run}",
        f"curves    {command} -m tensorboard.main --logdir {quote(str(run.parent))}",
        f"{'retest' if tested else 'test':<10}{command} train.py test --ckpt_path {quote(str(best))}",
        f"predict   {command} train.py predict --ckpt_path {quote(str(best))} --data.root FOLDER_OR_IMAGE",
    ]


def python_command() -> str:
    """Return the shortest command that starts this interpreter from the current folder."""
    for name in ("python", "python3"):
        if (path := shutil.which(name)) and Path(path).parent == Path(sys.executable).parent:
            return name
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable
