"""Optuna's record of a sweep, which several workers share, and what becomes of trials whose worker vanished."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from project.errors import UserError
from project.output import redact_secrets

HEARTBEAT, GRACE = 5, 45  # seconds between signs of life; without one until a trial is lost: it takes less to stop


def open_storage(address: str) -> optuna.storages.RDBStorage:
    """Return the data base of the trials; a UserError if it cannot be used."""
    waits = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    beats: dict[str, Any] = {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE}
    try:
        return optuna.storages.RDBStorage(address, waits, **beats, heartbeat_stale_trial_callback=again)
    except Exception as error:  # of the data base's own driver
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(redact_secrets(f"the storage {address} cannot be used: {line}")) from error


def begin(
    storage: optuna.storages.RDBStorage, name: str, mode: str, asked: dict[str, Any], folder: Path, warm_up: int
) -> tuple[optuna.Study, bool]:
    """Return the study of a name, of the space and mode that are asked for, and whether it is a new one."""
    direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
    # The median rule needs few trials to go by, where Hyperband's brackets would have only some of 30 each.
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=warm_up)
    how: dict[str, Any] = {"storage": storage, "study_name": name, "pruner": pruner}
    try:
        study = optuna.create_study(**how, direction=direction)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(**how)
        known = {**asked, **study.user_attrs}
        if known["space"] != asked["space"] or study.direction != direction:
            raise UserError(
                f"the sweep {name} was begun with another space or monitor: take --name for a new one"
            ) from None
        if known["config"] != asked["config"]:
            print("warning: config or options are not those that this sweep was begun with", file=sys.stderr)
        return study, False
    if any(folder.glob("trial_*")):
        optuna.delete_study(study_name=name, storage=storage)
        raise UserError(f"{folder} holds trials of another sweep: remove it, or take another --name")
    for key, value in asked.items():
        study.set_user_attr(key, value)
    return study, True


def again(study: optuna.Study, trial: FrozenTrial, **attributes: Any) -> None:
    """Queue the options of a trial that came to no end of its own; with `paused`, the run that it left, to continue."""
    attributes["again"] = trial.number
    options: dict[str, Any] = {"params": trial.params, "distributions": trial.distributions}
    study.add_trial(optuna.create_trial(state=TrialState.WAITING, **options, user_attrs=attributes))


def give_up_lost(study: optuna.Study) -> None:
    """Record as failed, and queue again, the trials of workers that give no sign of life or were killed before one."""
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        began = trial.datetime_start  # Optuna would not miss one without a heartbeat
        if "run" not in trial.user_attrs and began and (datetime.now() - began).total_seconds() > GRACE:
            study.tell(trial.number, state=TrialState.FAIL)
            again(study, trial)


def counting(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: not those that are run again for another."""
    return [trial for trial in study.get_trials(deepcopy=False) if not {"again", "surplus"} & set(trial.user_attrs)]
