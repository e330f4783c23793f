"""`python -m project cross_validate --folds 5 -- --config C`: one run a fold."""

import csv
import itertools
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

from project.errors import UserError
from project.files import write_table
from project.parser import in_order
from project.run import TRAIN

SHARES = ("acc", "precision", "recall", "f1")
"""Figures that are shown in per cent, as in a run."""


def cross_validate(folds: int = 5, run_name: str = "folds", fit_options: list[str] | None = None) -> None:
    """Train once for each fold; the mean and spread of every figure over the folds, and a table of all of them.

    Args:
        folds: How many parts to cut the images into; each is held out once.
        run_name: The runs are logs/RUN_NAME/version_N, the table is logs/RUN_NAME/folds.csv.
        fit_options: Configs and options of `train.py fit`; on the command line, write them behind ` -- `.

    Raises:
        UserError: a run failed.
    """
    if folds < 2:
        raise UserError(f"cross-validation needs at least 2 folds, got {folds}")
    root = _root(fit_options or [])
    shared = [*(fit_options or []), "--run_name", run_name, "--data.folds", str(folds)]
    results: dict[Path, dict[str, float]] = {}
    for fold in range(folds):
        print(f"fold {fold + 1} of {folds}", flush=True)
        before = set((root / run_name).glob("version_*"))
        command = [sys.executable, str(TRAIN), "fit", *shared, "--data.fold", str(fold)]
        if (code := subprocess.run(command).returncode) != 0:
            raise UserError(f"fold {fold + 1} of {folds} ended with exit code {code}; its own message stands above")
        new = set((root / run_name).glob("version_*")) - before
        run = max(new, key=lambda folder: folder.stat().st_mtime)
        results[run] = _best(run)
    print(f"\n{'':<24}{'mean':>9}{'std':>9}   each fold")
    for name in sorted({name for result in results.values() for name in result}):
        values = [result[name] for result in results.values()]
        form = ".2%" if name.rpartition("/")[2] in SHARES else ".4f"
        each = "  ".join(format(value, form) for value in values)
        print(f"{name:<24}{statistics.mean(values):>9{form}}{statistics.stdev(values):>9{form}}   {each}")
    table = root / run_name / "folds.csv"
    write_table(table, [{"fold": i, "run": str(run), **found} for i, (run, found) in enumerate(results.items())])
    print(f"\n{table}; the checkpoint of a fold: RUN/checkpoints/best.ckpt")


def _root(options: list[str]) -> Path:
    """Where `fit` puts its runs: the options say it, else the last config that does."""
    root, args = Path("logs"), in_order(["fit", *options])
    for option, following in itertools.pairwise([*args, ""]):
        name, _, value = option.partition("=")
        if name == "--trainer.default_root_dir":
            root = Path(value or following)
        elif name == "--config" and Path(following).is_file():  # what is wrong with it is for `fit` to say
            trainer = (yaml.safe_load(Path(following).read_text()) or {}).get("trainer") or {}
            if isinstance(trainer, str):  # a file of its own, named from where the config lies
                trainer = yaml.safe_load((Path(following).parent / trainer).read_text()) or {}
            root = Path(trainer.get("default_root_dir") or root)
    return root


def _best(run: Path) -> dict[str, float]:
    """The test figures of a run, and the val figures of the epoch with the best val/acc."""
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    best = max((row for row in rows if row["val/acc"]), key=lambda row: float(row["val/acc"]))
    test = [row for row in rows if row.get("test/acc")]
    found = [(best, "val/")] + [(row, "test/") for row in test[-1:]]
    return {name: float(row[name]) for row, prefix in found for name in row if name.startswith(prefix) and row[name]}
