"""`python -m project report RUN [RUN ...]`: the page of a tested run, or of several side by side."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from project.callbacks.calibration import BINS
from project.errors import UserError
from project.files import write_text
from project.parser import flatten
from project.report.charts import confusion_chart, confusion_picture, reliability_diagram
from project.report.comparison import comparison_page
from project.report.figures import Predictions
from project.report.read import Run, read_run
from project.report.render import render
from project.report.settings import settings, text
from project.report.summary import charts, tiles

DRAWN = 30
"""Classes up to which the confusion matrix shows its counts."""
PAIRS = 12
"""Pairs of classes shown as most confused."""
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "kornia", "timm", "numpy", "pillow")
KINDS = ("mistakes", "uncertain", "sample")


def report(runs: list[Path], output: Path | None = None) -> None:
    """Write one page, report.html, that says how a tested run went; for several runs, how they compare.

    Args:
        runs: Folders of runs that were tested: logs/NAME/version_N, or last. With several, the first is what the
            others are compared with.
        output: The file to write; by default report.html in the run's folder, for several runs ./comparison.html.

    Raises:
        UserError: nothing was tested in a folder, or the same one is given twice.
    """
    found = [read_run(run) for run in runs]
    if len({run.folder.resolve() for run in found}) < len(found):
        raise UserError("the same run is given twice: a comparison needs different ones")
    if len({run.name for run in found}) < len(found):
        found = [replace(run, name=str(run.folder)) for run in found]
    html = run_page(found[0]) if len(found) == 1 else comparison_page(found)
    file = output or (found[0].folder / "report.html" if len(runs) == 1 else Path("comparison.html"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, html)
    print(f"report    {file}")


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a run that was tested; where it is."""
    write_text(folder / "report.html", run_page(read_run(folder)))
    return folder / "report.html"


def run_page(run: Run) -> str:
    """The page of one run."""
    tested, facts = run.predictions, run.facts
    chosen, gone = settings(run.config, run.starts)
    start = run.starts[-1] if run.starts else {}
    of_test = facts.get("command") if run.trained != run.folder else None
    return render(
        "run.html",
        run=run,
        facts=facts,
        tested=tested,
        tiles=tiles(run),
        charts=charts([run]),
        best=run.best,
        matrix=_matrix(tested) if tested else None,
        pairs=tested.pairs[:PAIRS] if tested else [],
        classes=_classes(tested, facts.get("train_counts")) if tested else [],
        means={name: np.nanmean(tested.per_class[name]) for name in ("precision", "recall", "f1")} if tested else {},
        reliability=reliability_diagram(tested.bins, 1 / BINS) if tested else None,
        bins=BINS,
        pictures={kind: _pictures(run, kind) for kind in KINDS},
        settings=chosen,
        gone=gone,
        all_settings=[(name, text(value)) for name, value in flatten(run.config).items()],
        start=start,
        commands=[*(each.get("command", "") for each in run.starts), *([of_test] if of_test else [])],
        packages=[(name, start["packages"][name]) for name in PACKAGES if name in start.get("packages", {})],
    )


def _matrix(tested: Predictions) -> dict[str, Any]:
    if len(tested.names) <= DRAWN:
        return {"drawing": confusion_chart(tested.confusion, tested.names)}
    return {"picture": confusion_picture(tested.confusion)}


def _classes(tested: Predictions, train_counts: list[int] | None) -> list[dict[str, Any]]:
    """A row a class, the worst first."""
    wrong: dict[str, str] = {}
    for pair in tested.pairs:
        wrong.setdefault(pair.label, f"{pair.predicted} ({pair.images:,})")
    rows = [
        {
            "name": name,
            "train": train_counts[i] if train_counts else None,
            "taken_for": wrong.get(name, ""),
            **{key: float(values[i]) for key, values in tested.per_class.items()},
        }
        for i, name in enumerate(tested.names)
    ]
    return sorted(rows, key=lambda row: (np.isnan(row["f1"]), row["f1"]))


def _pictures(run: Run, kind: str) -> list[dict[str, Any]]:
    """Pictures with what was predicted and what is true."""
    tested = run.predictions
    if tested is None:
        return []
    row = {path: i for i, path in enumerate(tested.paths)}
    found = [(each, row[each["path"]]) for each in run.pictures.get(kind, []) if each["path"] in row]
    return [
        {
            **each,
            "predicted": tested.names[tested.predicted[i]],
            "label": tested.names[tested.label[i]],
            "probability": tested.probability[i],
            "right": tested.right[i],
        }
        for each, i in found
    ]
