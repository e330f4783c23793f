"""`python -m project sweep --config C --space S`: Optuna proposes, `train.py fit` tries."""

import signal
import subprocess
import sys
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import yaml
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from project.errors import Interrupted, UserError
from project.redact import without_secrets
from project.run import TRAIN
from project.search.report import conclude, describe
from project.search.space import any_point, options, point_of, read_space
from project.search.trial import TrialRun

HEARTBEAT, GRACE = 5, 45
"""Seconds between a worker's signs of life, and without one until its trial counts as lost; a trial that is asked to
stop takes less."""


def sweep(
    space: str = "",
    trials: int = 30,
    name: str | None = None,
    storage: str | None = None,
    minutes: float | None = None,
    fit_options: list[str] | None = None,
) -> None:
    """Search for the options that make the run's `checkpoint.monitor` best; its best value counts.

    The same command again continues a sweep, and several at once share it, on several machines by way of `--storage`.

    Args:
        space: YAML of options and the values that each may take, such as configs/sweep/convnet.yaml.
        trials: Trials in all, whichever worker runs them.
        name: The sweep's folder is ROOT/sweeps/NAME; by default the name of the space.
        storage: Address of the data base that keeps the trials, as Optuna takes it; by default a file in the folder.
        minutes: Begin no trial after so many.
        fit_options: Options of `train.py fit`; on the command line, write them behind ` -- `.

    Raises:
        UserError: the command line does not take the options, the first trials all failed, or none was finished.
        Interrupted: by Ctrl-C or SIGTERM; the trial continues with the sweep.
    """
    if not space or trials < 1:
        raise UserError("a sweep needs --space FILE, such as configs/sweep/convnet.yaml, and at least 1 trial")
    worker = Worker(Path(space), trials, name, storage, fit_options or [])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    try:
        worker.work(end)
    except KeyboardInterrupt as stopped:
        raise Interrupted("stopped; nothing is lost. Continue by the same command", 128 + stopped.args[0]) from None
    worker.conclude()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


class Worker:
    """One of the processes that share a study.

    Args:
        space: File of the search space.
        trials: Trials in all.
        name: Of the sweep; by default the space's.
        storage: Address of a data base; by default a file in the sweep's folder.
        fit_options: What all trials have in common.

    Attributes:
        study: Optuna's record of all trials.
    """

    def __init__(self, space: Path, trials: int, name: str | None, storage: str | None, fit_options: list[str]) -> None:
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")  # `_follow` records it
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.trials, self.fit_options = read_space(space), trials, fit_options
        # Before any trial, so that a mistake in space or options is told once.
        config = resolve([*fit_options, *options(any_point(self.space))], f"{space} or the options: ")
        self.name = name or space.stem
        self.folder = Path(config["trainer"]["default_root_dir"]) / "sweeps" / self.name
        self.metric, self.mode = config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
        if not self.metric:
            raise UserError("a sweep needs to know what is good: behind ` -- `, add --checkpoint.monitor val/acc")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        self.address = storage or f"sqlite:///{self.folder / 'study.db'}"
        # The median rule needs few trials to go by, where Hyperband's brackets would have only some of 30 each. Rates
        # that fall over the run make its beginning say little: a quarter is left to each trial.
        self._pruner = optuna.pruners.MedianPruner(n_warmup_steps=max(1, (config["trainer"]["max_epochs"] or 0) // 4))
        with self._lock:
            self._storage = self._open()
            self.study = self._begin(yaml.safe_dump(config))

    def _open(self) -> optuna.storages.RDBStorage:
        waits = {"connect_args": {"timeout": 60}} if self.address.startswith("sqlite") else {}
        try:
            return optuna.storages.RDBStorage(
                self.address,
                waits,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=again,
            )
        except Exception as error:  # of the data base's own driver
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(without_secrets(f"the storage {self.address} cannot be used: {line}")) from error

    def _begin(self, config: str) -> optuna.Study:
        """The study, new or as it stands; a new one first tries the config as it is."""
        direction = StudyDirection.MAXIMIZE if self.mode == "max" else StudyDirection.MINIMIZE
        given = {key: repr(values) for key, values in self.space.items()}
        try:
            study = optuna.create_study(
                storage=self._storage, study_name=self.name, direction=direction, pruner=self._pruner
            )
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=self._storage, study_name=self.name, pruner=self._pruner)
            if study.user_attrs.get("space", given) != given or study.direction != direction:
                raise UserError(
                    f"the sweep {self.name} was begun with another space or monitor: take --name for a new one"
                ) from None
            if study.user_attrs.get("config", config) != config:
                print("warning: config or options are not those that this sweep was begun with", file=sys.stderr)
            return study
        if any(self.folder.glob("trial_*")):
            optuna.delete_study(study_name=self.name, storage=self._storage)
            raise UserError(f"{self.folder} holds trials of another sweep: remove it, or take another --name")
        study.set_user_attr("space", given)
        study.set_user_attr("config", config)
        if (own := point_of(resolve(self.fit_options), self.space)) is not None:
            study.enqueue_trial(own)
        return study

    # -- trials -------------------------------------------------------------------------------------------------------

    def work(self, end: float) -> None:
        """Run trials until the study has all, or until a time of `time.monotonic`; then wait for other workers' trials.

        A worker that vanishes while this one waits leaves its trial to this one.
        """
        print(
            f"sweep     {self.folder}: {self.trials} trials by {self.metric} ({self.mode}), {len(self.space)} options"
        )
        print(f"watch     optuna-dashboard {without_secrets(self.address)}", flush=True)
        while True:
            optuna.storages.fail_stale_trials(self.study)
            self._find_nameless()
            trial = self._next() if time.monotonic() < end else None
            if trial is not None:
                self._run(trial)
            elif any(trial.state == TrialState.RUNNING for trial in self.study.get_trials(deepcopy=False)):
                time.sleep(1)
            else:
                return

    def _next(self) -> Trial | None:
        """Begin the next trial, unless all are begun."""
        with self._lock:
            known = self.study.get_trials(deepcopy=False)
            if not any(trial.state == TrialState.WAITING for trial in known) and len(_first(known)) >= self.trials:
                return None
            # TPE, multivariate and wary of what other workers try, is Optuna's own choice up to some hundred trials.
            # Seeded by what is known: workers must not draw alike, and a sweep that continues draws as a whole one.
            self.study.sampler = optuna.samplers.TPESampler(seed=len(known))
            trial = self.study.ask(self.space)
        self._storage.record_heartbeat(trial._trial_id)
        # Without a common folder there is no lock: what another machine began in the same moment may be one too many.
        before = [other for other in _first(self.study.get_trials(deepcopy=False)) if other.number < trial.number]
        if len(before) >= self.trials and "again" not in trial.user_attrs:
            trial.set_user_attr("surplus", True)
            self.study.tell(trial, state=TrialState.FAIL)
            return self._next()
        return trial

    def _find_nameless(self) -> None:
        """Give up what a worker began and was killed before its first sign of life, which Optuna would not miss."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            began = trial.datetime_start
            if "run" not in trial.user_attrs and began and (datetime.now() - began).total_seconds() > GRACE:
                self.study.tell(trial.number, state=TrialState.FAIL)
                again(self.study, trial)

    def _run(self, trial: Trial) -> None:
        """One trial, from its options to its record."""
        paused = trial.user_attrs.get("paused")
        name = paused or f"trial_{trial.number:04d}"
        trial.set_user_attr("run", name)
        resume = ["--ckpt_path", "resume"] if paused else []
        run = TrialRun(self.folder, name, [*self.fit_options, *options(trial.params), *resume])
        try:
            values = self._follow(trial, run)
        except UpdateFinishedTrialError:
            print(f"trial {trial.number} is another worker's by now: this one gave no sign of life for {GRACE} s")
            return
        except KeyboardInterrupt:
            print("stopping the trial; it is saved", file=sys.stderr, flush=True)
            run.stop()
            self.study.tell(trial, state=TrialState.FAIL)
            again(self.study, self.study.trials[trial.number], paused=name)
            raise
        finally:
            run.stop()
        if values is None:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif run.error is None and values:
            self.study.tell(trial, max(values) if self.mode == "max" else min(values))
        else:
            trial.set_user_attr("error", run.error or f"it logged no {self.metric}")
            self.study.tell(trial, state=TrialState.FAIL)
        run.forget_how_to_continue()
        print(describe(self.study.trials[trial.number]), flush=True)
        self._stop_if_hopeless()

    def _follow(self, trial: Trial, run: TrialRun) -> list[float] | None:
        """Report a trial's values as they come, until it ends; None where it ought to be ended."""
        beat, reported = 0.0, 0
        while True:
            ended = run.has_ended()  # before the values are read: then these are all
            if time.monotonic() - beat > HEARTBEAT:
                self._storage.record_heartbeat(trial._trial_id)
                beat = time.monotonic()
            values = run.values(self.metric)
            for step in range(reported, len(values)):
                trial.report(values[step], step)
                reported = step + 1
                if not ended and trial.should_prune():
                    return None
            if ended:
                return values
            time.sleep(0.5)

    def _stop_if_hopeless(self) -> None:
        known = self.study.get_trials(deepcopy=False)
        failed = [trial for trial in known if "error" in trial.user_attrs]
        if len(failed) >= 3 and not any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in known):
            raise UserError(f"the first {len(failed)} trials all failed: {failed[-1].user_attrs['error']}")

    def conclude(self) -> None:
        """Table, pictures and best.yaml."""
        done = [trial for trial in self.study.trials if trial.state == TrialState.COMPLETE]
        if not done:
            raise UserError(f"no trial of {self.folder} was trained to its end: there is no best one")
        best = self.study.best_trial
        text = _printed([*self.fit_options, *options(best.params)])
        with self._lock:
            conclude(self.study, self.folder, self.metric, text)


def again(study: optuna.Study, trial: FrozenTrial, paused: str | None = None) -> None:
    """Queue the options of a trial that came to no end of its own.

    Args:
        study: Where it is queued.
        trial: The one that ended.
        paused: The run that it left, for the new trial to continue. A lost worker's is begun anew: its process may
            not be gone for certain.
    """
    attributes = {"again": trial.number, **({"paused": paused} if paused else {})}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attributes,
        )
    )


def resolve(fit_options: list[str], context: str = "") -> dict[str, Any]:
    """The whole config that `train.py fit` makes of options."""
    config: dict[str, Any] = yaml.safe_load(_printed(fit_options, context))
    return config


def _printed(fit_options: list[str], context: str = "") -> str:
    command = [sys.executable, str(TRAIN), "fit", *fit_options, "--print_config"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise UserError(f"{context}{line.removeprefix('error: ')}")
    return done.stdout


def _first(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: not those that are run again for another."""
    return [trial for trial in trials if not {"again", "surplus"} & set(trial.user_attrs)]
