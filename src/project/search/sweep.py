"""`train.py sweep --config C --space S`: hyperparameter search with Optuna, one `train.py fit` per trial."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
import yaml
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from project.callbacks.best_checkpoint import best_is
from project.errors import Interrupted, UserError
from project.files import read_table
from project.modules.tasks import Multiclass, Multilabel, Regression, Task
from project.output import redact_secrets
from project.runs.checkpoints import LAST, PREVIOUS
from project.runs.folder import CHECKPOINTS
from project.search.space import any_point, options, point_of, read_space
from project.search.study import (
    GRACE,
    HEARTBEAT,
    counted_trials,
    enqueue_again,
    fail_lost_trials,
    load_or_create,
    open_storage,
)
from project.search.subprocesses import printed_config, raise_on_signal, resolved_config, start_fit
from project.search.summary import describe, write_summary


def sweep(
    space: str = "",
    trials: int = 30,
    name: str | None = None,
    storage: str | None = None,
    minutes: float | None = None,
    fit_options: list[str] | None = None,
) -> None:
    """Search for the options that optimize `checkpoint.monitor`; a trial's value is its best validation.

    Run the same command again to resume a sweep, or in parallel to share it among workers (on several machines with
    `--storage`).

    Args:
        space: YAML file of options and the values that each may take, e.g. configs/sweep/convnet.yaml.
        trials: Total number of trials, over all workers.
        name: The sweep's folder is ROOT/sweeps/NAME; by default the file name of the space.
        storage: Database URL in Optuna's format; by default an SQLite file in the sweep's folder.
        minutes: Start no new trial after this many minutes.
        fit_options: Configs and options of `train.py fit`, typed as there.

    Raises:
        UserError: `fit` rejects the options, the first trials all failed, or no trial is complete.
        Interrupted: by Ctrl-C or SIGTERM; the trial resumes with the sweep.
    """
    if not space or trials < 1:
        raise UserError("a sweep needs --space FILE, e.g. configs/sweep/convnet.yaml, and at least 1 trial")
    worker = Worker(Path(space), trials, name, storage, fit_options or [])
    raise_on_signal()
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    try:
        worker.work(end)
    except KeyboardInterrupt as interrupt:
        raise Interrupted("stopped; run the same command again to resume the sweep", 128 + interrupt.args[0]) from None
    worker.write_summary()


class TrialRun:
    """A trial: a `fit` subprocess in FOLDER/NAME/version_N, observed through the metrics it writes."""

    def __init__(self, folder: Path, name: str, options: list[str]) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        trial_options = ["--trainer.default_root_dir", str(folder), "--run_name", name, "--test_after_fit", "false"]
        with (self.folder / "output.txt").open("ab") as output:
            self.process = start_fit([*options, *trial_options], output)

    @property
    def error(self) -> str | None:
        """Error of a failed process, i.e. the last line of its output; None if it succeeded."""
        code = self.process.returncode
        if not code:
            return None
        text = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), f"exit code {code}")
        return last if code > 0 else f"killed by signal {-code}; {last}"

    def values(self, metric: str) -> list[float]:
        """Return the finite values of the metric, one per validation so far."""
        runs = self.folder.glob("version_*")
        file = max(runs, key=lambda run: int(run.name[8:]), default=self.folder) / "metrics.csv"
        values = [float(row[metric]) for row in read_table(file, []) if row.get(metric)] if file.is_file() else []
        return [value for value in values if math.isfinite(value)]

    def stop(self) -> None:
        """Ask the process to save and exit; kill it and its subprocesses after a timeout."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)  # seconds to save a checkpoint and exit
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def monitored(config: dict[str, Any]) -> tuple[str, str]:
    """Return the metric that a sweep optimizes and its mode: that of the checkpoint, or the default of the target."""
    metric, mode = config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
    if not metric:
        raise UserError("a sweep needs a metric to optimize: add --checkpoint.monitor val/acc")
    data = config["data"].get("init_args", {})
    columns = (data.get("columns") or {}).get("label")
    kind = data.get("target", "auto")
    kind = "multilabel" if kind == "auto" and data.get("label_separator") else kind
    if metric == "auto" and kind == "auto" and isinstance(columns, list) and len(columns) > 1:
        raise UserError("a sweep needs a metric to optimize: add --checkpoint.monitor, or --data.target")
    tasks: dict[str, type[Task]] = {"multilabel": Multilabel, "values": Regression}
    if metric == "auto":
        metric = tasks.get(kind, Multiclass).monitor[0]
    return metric, best_is(metric, {}) if mode == "auto" else mode


class Worker:
    """A worker of a study; see `sweep` for the arguments."""

    def __init__(self, space: Path, trials: int, name: str | None, storage: str | None, fit_options: list[str]) -> None:
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")  # `_monitor` records it
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.trials, self.fit_options = read_space(space), trials, fit_options
        # Validate the space and the options before the first trial.
        config = resolved_config([*fit_options, *options(any_point(self.space))], f"{space} or the options: ")
        self.name = name or space.stem
        self.folder = Path(config["trainer"]["default_root_dir"]) / "sweeps" / self.name
        self.metric, self.mode = monitored(config)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        self.address = storage or f"sqlite:///{self.folder / 'study.db'}"
        settings = {
            "space": {key: repr(values) for key, values in self.space.items()},
            "config": yaml.safe_dump(config),
        }
        # Early values predict little under a decaying learning rate: prune no trial in its first quarter.
        warmup_steps = max(1, (config["trainer"]["max_epochs"] or 0) // 4)
        with self._lock:
            self._storage = open_storage(self.address)
            self.study, new = load_or_create(self._storage, self.name, self.mode, settings, self.folder, warmup_steps)
            if new and (point := point_of(resolved_config(self.fit_options), self.space)) is not None:
                self.study.enqueue_trial(point)  # the unchanged config is the first trial

    def work(self, end: float) -> None:
        """Run trials until the study is complete or `time.monotonic` reaches `end`; then wait for other workers."""
        details = f"{self.trials} trials by {self.metric} ({self.mode}), {len(self.space)} options"
        print(f"sweep     {self.folder}: {details}")
        print(f"dashboard optuna-dashboard {redact_secrets(self.address)}", flush=True)
        while True:
            fail_lost_trials(self.study)
            trial = self._next() if time.monotonic() < end else None
            if trial is not None:
                self._run(trial)
            elif self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                time.sleep(1)  # take over the trial if its worker is lost
            else:
                return

    def _next(self) -> Trial | None:
        """Start the next trial; return None if all trials have been started."""
        with self._lock:
            waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if not waiting and len(counted_trials(self.study)) >= self.trials:
                return None
            # Multivariate TPE with a constant liar for parallel workers is Optuna's default. Seeded by the number of
            # trials: workers draw different samples, and a resumed sweep draws the same as an uninterrupted one.
            self.study.sampler = optuna.samplers.TPESampler(seed=len(self.study.get_trials(deepcopy=False)))
            trial = self.study.ask(self.space)
        self._storage.record_heartbeat(trial._trial_id)
        # Workers on different machines share no lock file: discard a trial that exceeds the total.
        before = sum(other.number < trial.number for other in counted_trials(self.study))
        if before >= self.trials and "again" not in trial.user_attrs:
            trial.set_user_attr("surplus", True)
            self.study.tell(trial, state=TrialState.FAIL)
            return self._next()
        return trial

    def _run(self, trial: Trial) -> None:
        """Run a trial and record its result."""
        paused = trial.user_attrs.get("paused")
        name = paused or f"trial_{trial.number:04d}"
        trial.set_user_attr("run", name)
        resume = ["--ckpt_path", "resume"] if paused else []
        run = TrialRun(self.folder, name, [*self.fit_options, *options(trial.params), *resume])
        try:
            values = self._monitor(trial, run)
        except UpdateFinishedTrialError:
            print(f"trial {trial.number} was taken over by another worker: no heartbeat for {GRACE} s")
            return
        except KeyboardInterrupt:
            print("stopping the trial; its checkpoint is saved", file=sys.stderr, flush=True)
            run.stop()
            self.study.tell(trial, state=TrialState.FAIL)
            enqueue_again(self.study, self.study.trials[trial.number], paused=name)
            raise
        finally:
            run.stop()
        if values is None:
            self.study.tell(trial, state=TrialState.PRUNED)
        elif run.error is None and values:
            self.study.tell(trial, max(values) if self.mode == "max" else min(values))
        else:
            trial.set_user_attr("error", run.error or f"{self.metric} was not logged")
            self.study.tell(trial, state=TrialState.FAIL)
        for file in run.folder.glob(f"version_*/{CHECKPOINTS}/*"):
            if file.name in (LAST, PREVIOUS):  # keep only the best checkpoint of each trial, to save disk space
                file.unlink()
        print(describe(self.study.trials[trial.number]), flush=True)
        failed = [trial for trial in self.study.trials if "error" in trial.user_attrs]
        ended = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if len(failed) >= 3 and not ended:
            raise UserError(f"the first {len(failed)} trials all failed: {failed[-1].user_attrs['error']}")

    def _monitor(self, trial: Trial, run: TrialRun) -> list[float] | None:
        """Report the values of a running trial until it ends; return all of them, or None if it should be pruned."""
        heartbeat, reported = 0.0, 0
        while True:
            ended = run.process.poll() is not None  # checked before reading, so that no value is missed
            if time.monotonic() - heartbeat > HEARTBEAT:
                self._storage.record_heartbeat(trial._trial_id)
                heartbeat = time.monotonic()
            values = run.values(self.metric)
            for step in range(reported, len(values)):
                trial.report(values[step], step)
                reported = step + 1
                if not ended and trial.should_prune():
                    return None
            if ended:
                return values
            time.sleep(0.5)

    def write_summary(self) -> None:
        """Write best.yaml and the figures, and print the table of trials."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise UserError(f"no complete trial in {self.folder}: run more trials to write best.yaml")
        best_config = printed_config([*self.fit_options, *options(self.study.best_params)])
        with self._lock:
            write_summary(self.study, self.folder, self.metric, best_config)
