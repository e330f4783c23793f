"""`train.py cross_validate --folds 5 -- --config C`: k-fold cross-validation, one run per fold."""

import signal
import statistics
from pathlib import Path

from project.errors import Interrupted, UserError
from project.files import write_table
from project.runs.read import Run
from project.search.subprocesses import raise_on_signal, resolved_config, start_fit


def cross_validate(folds: int = 5, run_name: str = "folds", fit_options: list[str] | None = None) -> None:
    """Train and test once per fold; print the mean and standard deviation of each metric and write them to a table.

    Args:
        folds: Number of folds; each is held out once.
        run_name: The runs are logs/RUN_NAME/version_N, the table is logs/RUN_NAME/folds.csv.
        fit_options: Configs and options of `train.py fit`, typed as there.

    Raises:
        UserError: `fit` rejects the options, or a run failed.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    if folds < 2:
        raise UserError(f"cross-validation needs at least 2 folds, got {folds}")
    root = Path(resolved_config(fit_options or [])["trainer"]["default_root_dir"])
    shared = [*(fit_options or []), "--run_name", run_name, "--data.folds", str(folds)]
    results: dict[Path, dict[str, float]] = {}
    for fold in range(folds):
        name = f"fold {fold + 1} of {folds}"
        print(name, flush=True)
        before = set((root / run_name).glob("version_*"))
        _fit([*shared, "--data.fold", str(fold)], name)
        new = set((root / run_name).glob("version_*")) - before
        if not new:
            raise UserError(f"{name} wrote no run folder: remove trainer.fast_dev_run")
        run = max(new, key=lambda folder: folder.stat().st_mtime)
        results[run] = _best_metrics(run)
    print(f"\n{'':<24}{'mean':>9}{'std':>9}   each fold")
    for name in sorted({name for result in results.values() for name in result}):
        values = [result[name] for result in results.values()]
        form = ".2%" if name.rpartition("/")[2] in ("acc", "precision", "recall", "f1") else ".4f"
        each = "  ".join(format(value, form) for value in values)
        print(f"{name:<24}{statistics.mean(values):>9{form}}{statistics.stdev(values):>9{form}}   {each}")
    table = root / run_name / "folds.csv"
    write_table(table, [{"fold": i, "run": str(run), **metrics} for i, (run, metrics) in enumerate(results.items())])
    print(f"\n{table}; checkpoint of each fold: RUN/checkpoints/best.ckpt")


def _fit(options: list[str], fold: str) -> None:
    """Train a fold; forward Ctrl-C and SIGTERM to it and wait until it has saved its checkpoint."""
    raise_on_signal()
    process = start_fit(options)
    try:
        code = process.wait()
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0]
        signal.signal(number, signal.SIG_DFL)  # a second signal terminates immediately
        process.send_signal(number)
        process.wait()
        raise Interrupted(f"stopped; {fold} is saved, earlier folds are complete", 128 + number) from None
    if code:
        raise UserError(f"{fold} failed with exit code {code}: see its error message above")


def _best_metrics(run: Path) -> dict[str, float]:
    """Return the test metrics of a run, and the val metrics of the epoch whose checkpoint was tested."""
    trained = Run(run, run.name, {}, {}, None, run)
    tested = [row for row in trained.metrics if any(name.startswith("test/") for name in row)]
    sources = [(trained.best or {}, "val/"), *((row, "test/") for row in tested[-1:])]
    return {name: row[name] for row, prefix in sources for name in row if name.startswith(prefix)}
