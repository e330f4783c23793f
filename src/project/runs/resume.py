"""Resuming runs: find the checkpoint, restore its options, and check that training can continue."""

import os
from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_warn

from project.errors import RunFinishedError, UserError
from project.interface import DataDescription
from project.output import pluralize
from project.runs.checkpoints import LAST, PREVIOUS, find_damage, load_checkpoint
from project.runs.folder import CHECKPOINTS, ENVIRONMENT, run_folder
from project.runs.spec import builder, to_spec

MODULE, DATA = "project.modules.Classifier", "project.datamodules.ImageDataModule"
"""Default class paths of the module and the datamodule."""
ORIGIN = ("root", "table", "source")
"""Datamodule options that select the dataset; if one is given, those of the checkpoint are ignored."""
DATASETS = ("train", "val", "test", "predict")
"""Likewise, of a DatasetModule; those of the checkpoint that no option concerns are ignored."""
ABOUT_ORIGIN = (*ORIGIN, "mask_boxes")
"""Datamodule options that apply only to the training dataset."""


def resolve_checkpoint(wanted: str, root: Path, name: str | None) -> Path:
    """Return the path of a checkpoint: a file, or the `best` or `last` one of the newest run (of a name) in `root`.

    If last.ckpt is missing or corrupted, fall back to previous.ckpt, then best.ckpt, with a warning.

    Raises:
        UserError: There is no such file or run, or the newest run has no best checkpoint.
    """
    path = Path(wanted)
    if wanted in ("best", "last"):
        # A kill while last.ckpt is replaced may leave only previous.ckpt; save_top_k > 1 gives several best ones.
        names = (LAST, PREVIOUS) if wanted == "last" else ("best*.ckpt",)
        runs = f"{escape(name) if name else '*'}/version_*/{CHECKPOINTS}"
        files = [file for each in names for file in root.glob(f"{runs}/{each}")]
        newest = _newest(files)
        without_best = (file for file in root.glob(f"{runs}/{LAST}") if not any(file.parent.glob("best*.ckpt")))
        if wanted == "best" and (last := _newest([newest, *without_best])) and last != newest:
            instead = "last" if newest is None else f"last, or {newest} of an earlier run"
            raise UserError(f"the newest run, {run_folder(last)}, has no best checkpoint: give --ckpt_path {instead}")
        if newest is None:
            raise UserError(
                f"no {wanted} checkpoint found in {root / (name or '')}: train a model with `train.py fit` first"
            )
        path = newest.with_name(f"{wanted}.ckpt")
        if wanted == "best" and not path.is_file():
            path = _best_of_several(newest.parent)
    if path.name == LAST:
        return _first_intact(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {wanted} (give a file, or `best` or `last` for the newest run)")
    return path


def _newest(files: Iterable[Path | None]) -> Path | None:
    """Return the file that was written last, or None if there is none."""
    return max(filter(None, files), key=lambda file: file.stat().st_mtime_ns, default=None)


def _best_of_several(folder: Path) -> Path:
    """Return the best of several checkpoints (save_top_k > 1), as recorded in the last checkpoint."""
    callbacks = load_checkpoint(_first_intact(folder / LAST))["callbacks"]
    best = [state["best_model_path"] for name, state in callbacks.items() if name.startswith("BestCheckpoint")]
    return folder / Path(best[0]).name


def _first_intact(last: Path) -> Path:
    problem = find_damage(last) if last.is_file() else "file not found"
    if not problem:
        return last
    for file in (last.with_name(PREVIOUS), last.with_name("best.ckpt")):
        if file.is_file() and not find_damage(file):
            rank_zero_warn(f"cannot load {last} ({problem}): falling back to {file.name}")
            return file
    raise UserError(f"cannot load {last} ({problem}), and there is no earlier checkpoint to fall back to")


def saved_options(saved: dict[str, Any], elsewhere: bool, given: Iterable[str] = ()) -> dict[str, Any]:
    """Return the `model` and `data` options of a checkpoint, in the format of a config.

    Args:
        saved: The checkpoint.
        elsewhere: Leave out the options of its dataset, because another one is used.
        given: Those in `DATASETS` that are given, and whose saved arguments are therefore kept as defaults.
    """
    about_data = (*ABOUT_ORIGIN, *(name for name in DATASETS if name not in given))
    parts = {"model": (MODULE, "hyper_parameters", ()), "data": (DATA, "datamodule_hyper_parameters", about_data)}
    options: dict[str, Any] = {}
    for name, (default, key, about_origin) in parts.items():
        known = saved.get(key, {})
        ignored = about_origin if elsewhere else ()
        arguments = {k: value for k, value in known.items() if k[0] != "_" and k not in ignored}
        if elsewhere and arguments.get("columns"):  # groups are kept, as it may be the training dataset, moved
            arguments["columns"] = arguments["columns"] | {"balance": None}
        options[name] = {"class_path": known.get("_class_path", default), "init_args": arguments}
    return options


def is_other_dataset(given: Mapping[str, Any], saved: dict[str, Any]) -> bool:
    """Return True if options select another dataset than the one that a model was trained on.

    Args:
        given: Datamodule options; of those in `ORIGIN` and `DATASETS`, those not given are as in the checkpoint.
        saved: The checkpoint.
    """
    trained_on = saved.get("datamodule_hyper_parameters", {})
    if any(given.get(name) and given[name] != trained_on.get(name) for name in DATASETS):
        return True
    chosen = {name: given[name] for name in ORIGIN if given.get(name)}
    if not chosen:
        return False
    return _origin(chosen if "source" in chosen else {**trained_on, **chosen}) != _origin(trained_on)


def _origin(options: Mapping[str, Any]) -> list[Any]:
    *paths, source = (options.get(name) or "" for name in ORIGIN)
    source = "" if any(paths) else source["class_path"] if isinstance(source, Mapping) else str(source)
    return [*(path if "://" in path else path and Path(path).resolve() for path in paths), source.rpartition(".")[2]]


def last_if_any(root: Path, name: str | None) -> str | None:
    """Resolve `--ckpt_path resume`: return `last` if a run of this name has a checkpoint, otherwise None."""
    if not name:
        raise UserError("--ckpt_path resume needs the name of the run: add --run_name NAME")
    exists = any(any(root.glob(f"{escape(name)}/version_*/{CHECKPOINTS}/{file}")) for file in (LAST, PREVIOUS))
    return "last" if exists else None


def requeued_run(root: Path) -> Path | None:
    """Return the last checkpoint of the run that this SLURM job started before it was requeued, or None."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) == 0:
        return None
    for file in sorted(root.glob(f"*/version_*/{ENVIRONMENT}"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            *_, start = yaml.safe_load_all(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError):
            continue  # that run was killed while it wrote the file
        if isinstance(start, dict) and start.get("slurm_job") == os.environ.get("SLURM_JOB_ID"):
            last = file.parent / CHECKPOINTS / LAST
            return last if last.exists() or last.with_name(PREVIOUS).exists() else None
    return None


def check_same_model(checkpoint: Path, saved: dict[str, Any], model: Any) -> None:
    """Raise a UserError if network, optimizer or scheduler differ from those of the checkpoint."""
    for name in ("net", "optimizer", "scheduler"):
        then, now = (builder(to_spec(spec)) if spec else None for spec in (saved[name], model[name]))
        if then is not now:
            old, new = (getattr(kind, "__name__", "none") for kind in (then, now))
            raise UserError(
                f"the run of {checkpoint} has model.{name} {old}, not {new}: omit the option to resume it,"
                f" or start a new run from its weights with --model.init_from {checkpoint}"
            )


def check_same_data(saved: DataDescription, data: DataDescription, folder: Path) -> None:
    """Raise a UserError if a run is resumed on data in `folder` that is not as described in its checkpoint."""
    kind = f"{data.input.kind}s"
    if saved.target != data.target or saved.input != data.input.adopt(saved.input):
        raise UserError(
            f"the checkpoint was trained on {saved.target} of {saved.input.kind}s of {saved.input}, but the data has"
            f" {data.target} of {kind} of {data.input}, or different class names: resume on the same data"
        )
    if saved.fingerprint != data.fingerprint:
        raise UserError(
            f"the {kind} in {folder} or their splits have changed since the checkpoint was saved: resume on the same"
            f" {kind} or start a new run"
        )


def check_not_finished(checkpoint: Path, saved: dict[str, Any], trainer: Any) -> None:
    """Raise a RunFinishedError if nothing is left to train under the current trainer options."""
    if "optimizer_states" not in saved:
        raise UserError(f"{checkpoint} has weights only: start a new run from them with --model.init_from {checkpoint}")
    done = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    steps = saved["global_step"]
    patience = _patience(trainer)
    waited = [state["wait_count"] for name, state in saved["callbacks"].items() if name.startswith("EarlyStopping")]
    timer = Timer(trainer.max_time)
    timer.load_state_dict(saved["callbacks"].get("Timer", {}))
    left = timer.time_remaining()
    if patience is not None and any(count >= patience for count in waited):
        reason = (
            f"stopped early after {pluralize(done, 'epoch')}; to train longer, raise the patience of EarlyStopping"
            f" ({patience}), with --trainer.callbacks.patience {2 * patience} if it is the last callback in the config"
        )
    elif (trainer.max_epochs or -1) > 0 and done >= trainer.max_epochs:
        reason = f"all {pluralize(done, 'epoch')} done; to train longer, add --trainer.max_epochs {2 * done}"
    elif trainer.max_steps > 0 and steps >= trainer.max_steps:
        reason = f"all {pluralize(steps, 'step')} done; to train longer, add --trainer.max_steps {2 * steps}"
    elif left is not None and left <= 0:
        reason = "time limit reached; to train longer, raise --trainer.max_time, which counts from the first start"
    else:
        return
    raise RunFinishedError(f"the run of {checkpoint} is finished: {reason}")


def _patience(trainer: Any) -> int | None:
    """Return the smallest configured patience of EarlyStopping; it overrides that of the checkpoint."""
    values = [
        int(callback.init_args.patience)
        for callback in trainer.callbacks or []
        if callback.class_path.rpartition(".")[2] == "EarlyStopping"
    ]
    return min(values, default=None)


def describe_checkpoint(path: Path, saved: dict[str, Any]) -> str:
    """Return a line that describes a checkpoint: file, epoch and the value of the metric that selected it."""
    progress = saved.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    facts = [f"epoch {progress['started']}"] if progress else []
    monitors = [str(state.get("monitor")) for state in saved.get("callbacks", {}).values() if isinstance(state, dict)]
    for name in dict.fromkeys(each for each in monitors if each in saved.get("callback_metrics", {})):
        value = float(saved["callback_metrics"][name])
        facts.append(f"{name} {value:.2%}" if name.endswith("/acc") else f"{name} {value:.4g}")
    return f"model     {path}" + (f" ({', '.join(facts)})" if facts else "")
