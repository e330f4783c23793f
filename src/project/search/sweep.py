"""`train.py sweep --config C --space S`: Optuna proposes, `train.py fit` tries."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import optuna
import yaml
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from project.errors import Interrupted, UserError
from project.files import read_table
from project.output import redact_secrets
from project.runs.checkpoints import LAST, PREVIOUS
from project.runs.folder import CHECKPOINTS
from project.search.space import any_point, options, point_of, read_space
from project.search.study import GRACE, HEARTBEAT, again, begin, counting, give_up_lost, open_storage
from project.search.subprocesses import printed_config, raise_on_signal, resolve, start_fit
from project.search.summary import conclude, describe


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
    raise_on_signal()
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    try:
        worker.work(end)
    except KeyboardInterrupt as stopped:
        raise Interrupted("stopped; nothing is lost. Continue by the same command", 128 + stopped.args[0]) from None
    worker.conclude()


class TrialRun:
    """A trial: `fit` in a process of its own, watched from outside by what it writes, in FOLDER/NAME/version_N."""

    def __init__(self, folder: Path, name: str, options: list[str]) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        own = ["--trainer.default_root_dir", str(folder), "--run_name", name, "--test_after_fit", "false"]
        with (self.folder / "output.txt").open("ab") as output:
            self.process = start_fit([*options, *own], output)

    @property
    def error(self) -> str | None:
        """Return why a process that is over did not come to its end: its last line, as a rule."""
        code = self.process.returncode
        if not code:
            return None
        text = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), f"exit code {code}")
        return last if code > 0 else f"killed by signal {-code}; {last}"

    def values(self, metric: str) -> list[float]:
        """Return the metric after each validation so far, where it is a number."""
        runs = self.folder.glob("version_*")
        file = max(runs, key=lambda run: int(run.name[8:]), default=self.folder) / "metrics.csv"
        found = [float(row[metric]) for row in read_table(file, []) if row.get(metric)] if file.is_file() else []
        return [value for value in found if math.isfinite(value)]

    def stop(self) -> None:
        """Ask it to save and end, and see that it and the processes it started do."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)  # seconds to save and end
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Worker:
    """One of the processes that share a study; the arguments are those of `sweep`."""

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

    def work(self, end: float) -> None:
        """Run trials until the study has all, or until a time of `time.monotonic`; then wait for other workers."""
        how = f"{self.trials} trials by {self.metric} ({self.mode}), {len(self.space)} options"
        print(f"sweep     {self.folder}: {how}")
        print(f"watch     optuna-dashboard {redact_secrets(self.address)}", flush=True)
        while True:
            give_up_lost(self.study)
            trial = self._next() if time.monotonic() < end else None
            if trial is not None:
                self._run(trial)
            elif self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                time.sleep(1)  # a worker that vanishes meanwhile leaves its trial to this one
            else:
                return

    def _next(self) -> Trial | None:
        """Begin the next trial, unless all are begun."""
        with self._lock:
            waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if not waiting and len(counting(self.study)) >= self.trials:
                return None
            # TPE, multivariate and wary of what other workers try, is Optuna's own choice up to some hundred trials.
            # Seeded by what is known: workers must not draw alike, and a sweep that continues draws as a whole one.
            self.study.sampler = optuna.samplers.TPESampler(seed=len(self.study.get_trials(deepcopy=False)))
            trial = self.study.ask(self.space)
        self._storage.record_heartbeat(trial._trial_id)
        # Without a common folder there is no lock: what another machine began in the same moment may be one too many.
        before = sum(other.number < trial.number for other in counting(self.study))
        if before >= self.trials and "again" not in trial.user_attrs:
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
        for file in run.folder.glob(f"version_*/{CHECKPOINTS}/*"):
            if file.name in (LAST, PREVIOUS):  # with those of every trial, a sweep would fill a disk
                file.unlink()
        print(describe(self.study.trials[trial.number]), flush=True)
        failed = [trial for trial in self.study.trials if "error" in trial.user_attrs]
        ended = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if len(failed) >= 3 and not ended:
            raise UserError(f"the first {len(failed)} trials all failed: {failed[-1].user_attrs['error']}")

    def _follow(self, trial: Trial, run: TrialRun) -> list[float] | None:
        """Report a trial's values as they come, until it ends; return None where it ought to be ended."""
        beat, reported = 0.0, 0
        while True:
            ended = run.process.poll() is not None  # before the values are read: then these are all
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

    def conclude(self) -> None:
        """Write table, pictures and best.yaml."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise UserError(f"no trial of {self.folder} was trained to its end: there is no best one")
        text = printed_config([*self.fit_options, *options(self.study.best_params)])
        with self._lock:
            conclude(self.study, self.folder, self.metric, text)
