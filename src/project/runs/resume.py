"""Going on from a checkpoint: which one a short name means, what it says of the options, whether anything is left."""

import os
from glob import escape
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_warn

from project.errors import RunFinishedError, UserError
from project.output import pluralize
from project.runs.checkpoints import LAST, PREVIOUS, find_damage, load_checkpoint
from project.runs.folder import CHECKPOINTS, ENVIRONMENT
from project.runs.spec import builder, to_spec

MODULE, DATA = "project.modules.Classifier", "project.datamodules.ImageDataModule"
"""Class paths of the module and the datamodule unless others are chosen."""
ORIGIN = ("root", "labels", "source")
"""Options of the datamodule that say where images are; given one, the others of a checkpoint do not count."""
ABOUT_ORIGIN = (*ORIGIN, "mask_boxes", "group_column", "balance_column", "folds", "fold")
"""Options that mean something only for the images that a model was trained on."""


def resolve_checkpoint(wanted: str, root: Path, name: str | None) -> Path:
    """Return the checkpoint that a path, or `best` or `last` of the newest run (of a name) below a folder, means.

    Where last.ckpt is missing or damaged, the one before it takes its place, then the best one, with a warning.
    """
    path = Path(wanted)
    if wanted in ("best", "last"):
        # A kill while last.ckpt is replaced may leave only the one before it; there may be several best ones.
        names = (LAST, PREVIOUS) if wanted == "last" else ("best*.ckpt",)
        runs = f"{escape(name) if name else '*'}/version_*/{CHECKPOINTS}"
        found = [file for each in names for file in root.glob(f"{runs}/{each}")]
        newest = max(found, key=lambda file: file.stat().st_mtime_ns, default=None)
        if newest is None:
            raise UserError(f"no run in {root / (name or '')} has a {wanted} checkpoint: train one with `fit` first")
        path = newest.with_name(f"{wanted}.ckpt")
        if wanted == "best" and not path.is_file():
            path = _best_of_several(newest.parent)
    if path.name == LAST:
        return _first_whole(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {wanted} (give a file, or best or last for the newest run)")
    return path


def _best_of_several(folder: Path) -> Path:
    """With --checkpoint.save_top_k above 1: what the last checkpoint holds to be the best."""
    callbacks = load_checkpoint(_first_whole(folder / LAST))["callbacks"]
    found = [state["best_model_path"] for name, state in callbacks.items() if name.startswith("ModelCheckpoint")]
    return folder / Path(found[0]).name


def _first_whole(last: Path) -> Path:
    problem = find_damage(last) if last.is_file() else "it is not there"
    if not problem:
        return last
    for file in (last.with_name(PREVIOUS), last.with_name("best.ckpt")):
        if file.is_file() and not find_damage(file):
            rank_zero_warn(f"{last} cannot be used ({problem}): going back to the one before it, {file.name}")
            return file
    raise UserError(f"no such checkpoint, or it is damaged: {last} ({problem}), and there is none before it")


def saved_options(saved: dict[str, Any], elsewhere: bool) -> dict[str, Any]:
    """Return the `model` and `data` that a checkpoint was trained with, as a config has them.

    `elsewhere` leaves out where its images were, as others are read now.
    """
    parts = {"model": (MODULE, "hyper_parameters", ()), "data": (DATA, "datamodule_hyper_parameters", ABOUT_ORIGIN)}
    found: dict[str, Any] = {}
    for name, (default, key, about_origin) in parts.items():
        known = saved.get(key, {})
        left_out = about_origin if elsewhere else ()
        arguments = {k: value for k, value in known.items() if k[0] != "_" and k not in left_out}
        found[name] = {"class_path": known.get("_class_path", default), "init_args": arguments}
    return found


def last_if_any(root: Path, name: str | None) -> str | None:
    """What `--ckpt_path resume` means: `last` once a run of this name has such a checkpoint, nothing before."""
    if not name:
        raise UserError("--ckpt_path resume continues the run of one name, if there is one: give it by --run_name")
    there = any(any(root.glob(f"{escape(name)}/version_*/{CHECKPOINTS}/{file}")) for file in (LAST, PREVIOUS))
    return "last" if there else None


def requeued_run(root: Path) -> Path | None:
    """The last checkpoint of the run that this SLURM job began before it was queued again; None for another start."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) == 0:
        return None
    for file in sorted(root.glob(f"*/version_*/{ENVIRONMENT}"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            *_, start = yaml.safe_load_all(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError):
            continue  # its run was killed while it began
        if isinstance(start, dict) and start.get("slurm_job") == os.environ.get("SLURM_JOB_ID"):
            last = file.parent / CHECKPOINTS / LAST
            return last if last.exists() or last.with_name(PREVIOUS).exists() else None
    return None


def check_same_model(checkpoint: Path, saved: dict[str, Any], model: Any) -> None:
    """See that a run goes on with the net, optimizer and schedule whose state it has."""
    for name in ("net", "optimizer", "scheduler"):
        then, now = (builder(to_spec(spec)) if spec else None for spec in (saved[name], model[name]))
        if then is not now:
            was, asked = (getattr(kind, "__name__", "none") for kind in (then, now))
            raise UserError(
                f"the run of {checkpoint} has model.{name} {was}, not {asked}: leave the option out"
                f" to continue it, or begin a new run from its weights by --model.init_from {checkpoint}"
            )


def check_not_finished(checkpoint: Path, saved: dict[str, Any], trainer: Any) -> None:
    """See that a checkpoint leaves something to train, by the trainer's configuration as it is now."""
    if "optimizer_states" not in saved:
        raise UserError(f"{checkpoint} holds weights only: start a new run from them by --model.init_from {checkpoint}")
    done = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    steps = saved["global_step"]
    patience = _patience(trainer)
    waited = [state["wait_count"] for name, state in saved["callbacks"].items() if name.startswith("EarlyStopping")]
    timer = Timer(trainer.max_time)
    timer.load_state_dict(saved["callbacks"].get("Timer", {}))
    left = timer.time_remaining()
    if patience is not None and any(count >= patience for count in waited):
        how = (
            f"it stopped early after {pluralize(done, 'epoch')}; to train longer, raise the patience of EarlyStopping"
            f" ({patience}), by --trainer.callbacks.patience {2 * patience} where it is the config's last callback"
        )
    elif (trainer.max_epochs or -1) > 0 and done >= trainer.max_epochs:
        how = f"all {pluralize(done, 'epoch')}; to train longer, add --trainer.max_epochs {2 * done}"
    elif trainer.max_steps > 0 and steps >= trainer.max_steps:
        how = f"all {pluralize(steps, 'step')}; to train longer, add --trainer.max_steps {2 * steps}"
    elif left is not None and left <= 0:
        how = "its time is used up; to train longer, raise --trainer.max_time, which counts from the very start"
    else:
        return
    raise RunFinishedError(f"the run of {checkpoint} is finished: {how}")


def _patience(trainer: Any) -> int | None:
    """The least patience of the EarlyStopping callbacks that are configured now; it beats the checkpoint's."""
    found = [
        int(callback.init_args.patience)
        for callback in trainer.callbacks or []
        if callback.class_path.rpartition(".")[2] == "EarlyStopping"
    ]
    return min(found, default=None)


def describe_checkpoint(path: Path, saved: dict[str, Any]) -> str:
    """Which model is used: the file, the epoch that it stands at, and what it scored on val."""
    progress = saved.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    facts = [f"epoch {progress['started']}"] if progress else []
    if "val/acc" in saved.get("callback_metrics", {}):
        facts.append(f"val/acc {float(saved['callback_metrics']['val/acc']):.2%}")
    return f"model     {path}" + (f" ({', '.join(facts)})" if facts else "")
