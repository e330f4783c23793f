"""The command `report`: HTML report of a tested run, or comparison of several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from project.errors import UserError
from project.files import read_table, write_text
from project.report.charts import confusion_chart, confusion_image, reliability_diagram
from project.report.comparison import comparison_page
from project.report.settings import flat_options, settings
from project.report.summary import charts, render, tiles
from project.runs.folder import TEST_PREDICTIONS
from project.runs.predictions import Predictions
from project.runs.read import Run, read_run
from project.runs.statistics import BINS

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "kornia", "timm", "numpy", "pillow")
KINDS = ("mistakes", "uncertain", "sample")


def report(runs: list[Path], output: Path | None = None) -> None:
    """Write the HTML report of a tested run, or a comparison of several runs.

    Args:
        runs: Folders of tested runs, e.g. logs/NAME/version_N, or `last`. The first is the baseline of a comparison.
        output: File to write; by default report.html in the run folder, or ./comparison.html for several runs.

    Raises:
        UserError: a run has no test results, or the same run is given twice.
    """
    loaded = [read_run(run) for run in runs]
    if len({run.folder.resolve() for run in loaded}) < len(loaded):
        raise UserError("the same run is given twice: give different runs to compare")
    if len({run.name for run in loaded}) < len(loaded):
        loaded = [replace(run, name=str(run.folder)) for run in loaded]
    html = run_page(loaded[0]) if len(loaded) == 1 else comparison_page(loaded)
    file = output or (loaded[0].folder / "report.html" if len(runs) == 1 else Path("comparison.html"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, html)
    print(f"report    {file}")


def run_page(run: Run) -> str:
    """Return the HTML report of a run."""
    tested, facts, kind = run.predictions, run.facts, run.facts.get("kind", "image")
    configured, missing_configs = settings(run.config, run.starts)
    start = run.starts[-1] if run.starts else {}
    commands = [each.get("command", "") for each in run.starts]
    if run.trained != run.folder and facts.get("command"):
        commands.append(facts["command"])
    packages = start.get("packages", {})
    page: dict[str, Any] = {"run": run, "facts": facts, "kind": kind, "tested": tested, "start": start, "bins": BINS}
    page |= {"tiles": tiles(run), "charts": charts([run]), "best": run.best, "samples": _samples(run)}
    page |= {"settings": configured, "missing_configs": missing_configs, "all_options": flat_options(run.config)}
    page["commands"] = commands
    page["packages"] = [(name, packages[name]) for name in PACKAGES if name in packages]
    if tested:
        chart = confusion_chart(tested.confusion, tested.names) if len(tested.names) <= 30 else None  # legible
        page |= {
            "confusion_chart": chart,
            "confusion_image": None if chart else confusion_image(tested.confusion),
            "pairs": tested.pairs[:12],
            "classes": _classes(tested, facts.get("train_counts")),
            "means": {name: np.nanmean(tested.per_class[name]) for name in ("precision", "recall", "f1")},
            "reliability": reliability_diagram(tested.bins, 1 / BINS, kind),
        }
    return render("run.html", **page)


def _classes(tested: Predictions, train_counts: list[int] | None) -> list[dict[str, Any]]:
    """Return the rows of the per-class table, sorted by F1, lowest first."""
    # Reversed, so that the most frequent confusion of a class is kept.
    confused = {pair.label: f"{pair.predicted} ({pair.images:,})" for pair in reversed(tested.pairs)}
    rows = []
    for i, name in enumerate(tested.names):
        row = {"name": name, "train": train_counts[i] if train_counts else None}
        row["confused_with"] = confused.get(name, "")
        rows.append(row | {key: float(values[i]) for key, values in tested.per_class.items()})
    return sorted(rows, key=lambda row: (np.isnan(row["f1"]), row["f1"]))


def _samples(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return samples by kind with prediction and label, or for tasks other than classification with `columns`."""
    tested, samples = run.predictions, {kind: run.samples.get(kind, []) for kind in KINDS}
    shown = {each["path"] for of_kind in samples.values() for each in of_kind}
    details: dict[str, dict[str, Any]]
    if tested is None:
        details = {row.pop("path"): {"columns": row} for row in read_table(run.folder / TEST_PREDICTIONS, ["path"])}
    else:
        names, columns = tested.names, (tested.predicted, tested.label, tested.probability)
        details = {
            path: {"predicted": names[p], "label": names[c], "probability": q, "correct": p == c}
            for path, p, c, q in zip(tested.paths, *columns, strict=True)
            if path in shown
        }
    return {
        kind: [each | details[each["path"]] for each in of_kind if each["path"] in details]
        for kind, of_kind in samples.items()
    }
