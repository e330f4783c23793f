"""The command `report`: the page of a tested run, or of several side by side."""

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


def run_page(run: Run) -> str:
    """The page of one run."""
    tested, facts, kind = run.predictions, run.facts, run.facts.get("kind", "image")
    chosen, gone = settings(run.config, run.starts)
    start = run.starts[-1] if run.starts else {}
    commands = [each.get("command", "") for each in run.starts]
    if run.trained != run.folder and facts.get("command"):
        commands.append(facts["command"])
    packages = start.get("packages", {})
    page: dict[str, Any] = {"run": run, "facts": facts, "kind": kind, "tested": tested, "start": start, "bins": BINS}
    page |= {"tiles": tiles(run), "charts": charts([run]), "best": run.best, "samples": _samples(run)}
    page |= {"settings": chosen, "gone": gone, "all_settings": flat_options(run.config), "commands": commands}
    page["packages"] = [(name, packages[name]) for name in PACKAGES if name in packages]
    if tested:
        drawing = confusion_chart(tested.confusion, tested.names) if len(tested.names) <= 30 else None  # legible
        page |= {
            "drawing": drawing,
            "confusion_image": None if drawing else confusion_image(tested.confusion),
            "pairs": tested.pairs[:12],
            "classes": _classes(tested, facts.get("train_counts")),
            "means": {name: np.nanmean(tested.per_class[name]) for name in ("precision", "recall", "f1")},
            "reliability": reliability_diagram(tested.bins, 1 / BINS, kind),
        }
    return render("run.html", **page)


def _classes(tested: Predictions, train_counts: list[int] | None) -> list[dict[str, Any]]:
    """A row a class, the worst first."""
    wrong = {pair.label: f"{pair.predicted} ({pair.images:,})" for pair in reversed(tested.pairs)}  # the most, last
    rows = []
    for i, name in enumerate(tested.names):
        row = {"name": name, "train": train_counts[i] if train_counts else None, "taken_for": wrong.get(name, "")}
        rows.append(row | {key: float(values[i]) for key, values in tested.per_class.items()})
    return sorted(rows, key=lambda row: (np.isnan(row["f1"]), row["f1"]))


def _samples(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Samples by kind, with what was predicted and what is true; of no classification, its `columns` of the table."""
    tested, chosen = run.predictions, {kind: run.samples.get(kind, []) for kind in KINDS}
    shown = {each["path"] for found in chosen.values() for each in found}
    known: dict[str, dict[str, Any]]
    if tested is None:
        known = {row.pop("path"): {"columns": row} for row in read_table(run.folder / TEST_PREDICTIONS, ["path"])}
    else:
        names, columns = tested.names, (tested.predicted, tested.label, tested.probability)
        known = {
            path: {"predicted": names[p], "label": names[c], "probability": q, "correct": p == c}
            for path, p, c, q in zip(tested.paths, *columns, strict=True)
            if path in shown
        }
    return {kind: [x | known[x["path"]] for x in found if x["path"] in known] for kind, found in chosen.items()}
