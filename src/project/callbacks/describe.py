"""A run in words."""

import shutil
import sys
from pathlib import Path
from shlex import quote

import lightning as L

from project.interface import ImageData, image_classifier, image_data, time_limit
from project.machine import describe_device
from project.words import counted, duration


def data_line(data: ImageData) -> str:
    """What was found: where, how many images and classes, by split."""
    sizes, description = data.split_sizes(), data.description
    splits = "  ".join(f"{split} {count:,}" for split, count in sizes.items() if count)
    images, classes = counted(sum(sizes.values()), "image"), f"{len(description.class_names):,} classes"
    line = f"data      {data.folder}: {images}, {classes}; {splits}"
    return line if sizes["test"] else f"{line}  (no test split: val will be tested on)"


def choice_lines(trainer: L.Trainer) -> list[str]:
    """What was chosen: net, device, precision, optimizer, batch, schedule."""
    model, data = image_classifier(trainer), image_data(trainer)
    size = data.description.image_size
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = trainer.optimizers[0]
    name = f"{'fused ' if optimizer.defaults.get('fused') else ''}{type(optimizer).__name__}"
    decay = max(group.get("weight_decay", 0) for group in optimizer.param_groups)
    schedules = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
    world = trainer.world_size
    each = f" ({data.batch_size // world:,} on each of {world} devices)" if world > 1 else ""
    device = f"{describe_device(trainer.strategy.root_device)}{f' x {world}' if world > 1 else ''}"
    return [
        f"net       {type(model.net).__name__}: {parameters:,} parameters, images {size}x{size}",
        f"device    {device}, precision {trainer.precision}, {', '.join(model.settings)}",
        f"training  {name}, learning rate {optimizer.defaults['lr']:g}, weight decay {decay:g}, "
        f"schedule {schedules[0] if schedules else 'constant'}",
        f"batch     {counted(data.batch_size, 'image')}{each} from {data.reading}, "
        f"{counted(int(trainer.num_training_batches), 'step')} an epoch, {_end(trainer)}",
    ]


def _end(trainer: L.Trainer) -> str:
    """Where the run ends at the latest."""
    most = trainer.max_epochs or -1
    epochs = counted(most, "epoch") if most >= 0 else "any number of epochs"
    clock = time_limit(trainer)
    limit = clock.time_remaining() if clock else None
    return f"at most {epochs}{f', {duration(limit)}' if limit else ''}"


def next_lines(run: Path, best: Path, tested: bool) -> list[str]:
    """Where the run is and what to type next."""
    command = python()
    return [
        f"run       {run}",
        f"curves    {command} -m tensorboard.main --logdir {quote(str(run.parent))}",
        f"{'again' if tested else 'test':<10}{command} train.py test --ckpt_path {quote(str(best))}",
        f"predict   {command} train.py predict --ckpt_path {quote(str(best))} --data.root FOLDER_OR_IMAGE",
    ]


def python() -> str:
    """How to call this interpreter from the current folder, so that the lines can be pasted as they are."""
    for name in ("python", "python3"):
        if (found := shutil.which(name)) and Path(found).parent == Path(sys.executable).parent:
            return name
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable
