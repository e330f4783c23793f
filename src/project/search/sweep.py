"""`python -m project sweep --config C --space S`: Optuna proposes, `train.py fit` tries."""

import sys
import time
import warnings
from pathlib import Path

import optuna
import yaml
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from project.child import printed_config, resolve, stop_by_exception
from project.errors import Interrupted, UserError
from project.redact import without_secrets
from project.search.report import conclude, describe
from project.search.space import any_point, options, point_of, read_space
from project.search.study import GRACE, HEARTBEAT, again, begin, counting, give_up_lost, open_storage
from project.search.trial import TrialRun


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
    stop_by_exception()
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    try:
        worker.work(end)
    except KeyboardInterrupt as stopped:
        raise Interrupted("stopped; nothing is lost. Continue by the same command", 128 + stopped.args[0]) from None
    worker.conclude()


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
        asked = {"space": {key: repr(values) for key, values in self.space.items()}, "config": yaml.safe_dump(config)}
        # Rates that fall over the run make its beginning say little: a quarter is left to each trial.
        warm_up = max(1, (config["trainer"]["max_epochs"] or 0) // 4)
        with self._lock:
            self._storage = open_storage(self.address)
            self.study, new = begin(self._storage, self.name, self.mode, asked, self.folder, warm_up)
            if new and (own := point_of(resolve(self.fit_options), self.space)) is not None:
                self.study.enqueue_trial(own)  # first the config as it is

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
            give_up_lost(self.study)
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
            if not any(trial.state == TrialState.WAITING for trial in known) and len(counting(known)) >= self.trials:
                return None
            # TPE, multivariate and wary of what other workers try, is Optuna's own choice up to some hundred trials.
            # Seeded by what is known: workers must not draw alike, and a sweep that continues draws as a whole one.
            self.study.sampler = optuna.samplers.TPESampler(seed=len(known))
            trial = self.study.ask(self.space)
        self._storage.record_heartbeat(trial._trial_id)
        # Without a common folder there is no lock: what another machine began in the same moment may be one too many.
        before = [other for other in counting(self.study.get_trials(deepcopy=False)) if other.number < trial.number]
        if len(before) >= self.trials and "again" not in trial.user_attrs:
            trial.set_user_attr("surplus", True)
            self.study.tell(trial, state=TrialState.FAIL)
            return self._next()
        return trial

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
        text = printed_config([*self.fit_options, *options(best.params)])
        with self._lock:
            conclude(self.study, self.folder, self.metric, text)
