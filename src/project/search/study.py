"""The Optuna study of a sweep: storage, pruner, retries of interrupted and lost trials."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from project.errors import UserError
from project.output import redact_secrets

HEARTBEAT, GRACE = 5, 45  # seconds between heartbeats; without one until a trial is lost, longer than stopping takes


def open_storage(address: str) -> optuna.storages.RDBStorage:
    """Return the database of the trials.

    Raises:
        UserError: the database cannot be used.
    """
    engine_options = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    heartbeat: dict[str, Any] = {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE}
    try:
        return optuna.storages.RDBStorage(
            address, engine_options, **heartbeat, heartbeat_stale_trial_callback=enqueue_again
        )
    except Exception as error:  # depends on the database driver
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(redact_secrets(f"the storage {address} cannot be used: {line}")) from error


def load_or_create(
    storage: optuna.storages.RDBStorage, name: str, mode: str, settings: dict[str, Any], folder: Path, warmup_steps: int
) -> tuple[optuna.Study, bool]:
    """Return a study by name, and True if it is new.

    Args:
        storage: Database of the trials.
        name: Name of the study.
        mode: `max` or `min`.
        settings: Search space and config, compared with those of an existing study.
        folder: The sweep's folder.
        warmup_steps: Validations before a trial can be pruned.

    Raises:
        UserError: the study exists with another space or mode, or the folder contains trials of another study.
    """
    direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
    # The median rule works with few trials; Hyperband would divide them among its brackets.
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=warmup_steps)
    arguments: dict[str, Any] = {"storage": storage, "study_name": name, "pruner": pruner}
    try:
        study = optuna.create_study(**arguments, direction=direction)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(**arguments)
        saved = {**settings, **study.user_attrs}
        if saved["space"] != settings["space"] or study.direction != direction:
            raise UserError(
                f"the sweep {name} exists with another space or monitor: start a new one with --name"
            ) from None
        if saved["config"] != settings["config"]:
            print("warning: the config or options differ from those this sweep was started with", file=sys.stderr)
        return study, False
    if any(folder.glob("trial_*")):
        optuna.delete_study(study_name=name, storage=storage)
        raise UserError(f"{folder} contains trials of another sweep: remove it, or choose another --name")
    for key, value in settings.items():
        study.set_user_attr(key, value)
    return study, True


def enqueue_again(study: optuna.Study, trial: FrozenTrial, **attributes: Any) -> None:
    """Enqueue the options of an interrupted trial again; the attribute `paused` names the run to resume."""
    attributes["again"] = trial.number
    options: dict[str, Any] = {"params": trial.params, "distributions": trial.distributions}
    study.add_trial(optuna.create_trial(state=TrialState.WAITING, **options, user_attrs=attributes))


def fail_lost_trials(study: optuna.Study) -> None:
    """Mark the trials of workers without a heartbeat as failed and enqueue them again."""
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        started = trial.datetime_start  # Optuna ignores trials whose worker was killed before the first heartbeat
        if "run" not in trial.user_attrs and started and (datetime.now() - started).total_seconds() > GRACE:
            study.tell(trial.number, state=TrialState.FAIL)
            enqueue_again(study, trial)


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count toward `--trials`: all but retries and surplus trials."""
    return [trial for trial in study.get_trials(deepcopy=False) if not {"again", "surplus"} & set(trial.user_attrs)]
