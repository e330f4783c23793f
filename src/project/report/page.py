"""The command `report`: HTML report of a tested run, or comparison of several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from project.errors import UserError
from project.files import read_rows, write_text
from project.report.comparison import comparison_page
from project.report.curves import POINTS
from project.report.results import captions, results
from project.report.settings import flat_options, settings
from project.report.summary import charts, render, tiles
from project.runs.folder import TEST_PREDICTIONS
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
    facts, kind = run.facts, run.facts.get("kind", "image")
    configured, missing_configs = settings(run.config, run.starts)
    start = run.starts[-1] if run.starts else {}
    commands = [each.get("command", "") for each in run.starts]
    if run.trained != run.folder and facts.get("command"):
        commands.append(facts["command"])
    packages = start.get("packages", {})
    page: dict[str, Any] = {
        "run": run,
        "facts": facts,
        "kind": kind,
        "tested": run.predictions,
        "start": start,
        "bins": BINS,
    }
    page |= {"target": run.target, "of": run.target["kind"] if run.predictions else None, "points": POINTS}
    page |= {"tiles": tiles(run), "charts": charts([run]), "best": run.best, "samples": _samples(run)}
    page |= {"settings": configured, "missing_configs": missing_configs, "all_options": flat_options(run.config)}
    page["commands"] = commands
    page["packages"] = [(name, packages[name]) for name in PACKAGES if name in packages]
    page |= results(run)
    return render("run.html", **page)


def _samples(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return samples by kind with prediction and label in words, or for a custom target with `columns`."""
    samples = {kind: run.samples.get(kind, []) for kind in KINDS}
    shown = {each["path"] for of_kind in samples.values() for each in of_kind}
    details: dict[str, dict[str, Any]]
    if run.predictions is None:
        header, rows = read_rows(run.folder / TEST_PREDICTIONS, [])
        details = {row[0]: {"columns": dict(zip(header[1:], row[1:], strict=True))} for row in rows}
    else:
        caption = captions(run)
        details = {path: caption(row) for row, path in enumerate(run.predictions.paths) if path in shown}
    return {
        kind: [each | details[each["path"]] for each in of_kind if each["path"] in details]
        for kind, of_kind in samples.items()
    }
