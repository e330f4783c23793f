"""`python -m project report RUN [RUN ...]`: the page of a tested run, or of several side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from project.callbacks.describe import duration
from project.errors import UserError
from project.parser import flatten
from project.report.charts import Curve, confusion_chart, confusion_picture, line_chart, reliability_diagram
from project.report.figures import BINS, Comparison, Predictions, compare, holm
from project.report.read import Run, read_run
from project.report.settings import settings, text

DRAWN = 30
"""Classes up to which the confusion matrix has its counts."""
PAIRS = 12
STYLES = 6
"""Kinds of line in a chart."""
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "kornia", "timm", "numpy", "pillow")
KINDS = {"mistakes": 12, "uncertain": 12, "sample": 12}


def report(runs: list[Path], output: Path | None = None) -> None:
    """Write one page, report.html, that says how a tested run went; for several runs, how they compare.

    Args:
        runs: Folders of runs that were tested: logs/NAME/version_N. With several, the first is what the others are
            compared with.
        output: The file to write; by default report.html in the run's folder, for several runs ./comparison.html.

    Raises:
        UserError: nothing was tested in a folder, or the same one is given twice.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("the same run is given twice: a comparison needs different ones")
    found = [read_run(run) for run in runs]
    html = run_page(found[0]) if len(found) == 1 else comparison_page(found)
    file = output or (runs[0] / "report.html" if len(runs) == 1 else Path("comparison.html"))
    _write(file, html)
    print(f"report    {file}")


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a run that was tested; where it is."""
    _write(folder / "report.html", run_page(read_run(folder)))
    return folder / "report.html"


def _write(file: Path, html: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(html, encoding="utf-8", errors="replace")
    partial.replace(file)


def run_page(run: Run) -> str:
    """The page of one run."""
    tested, facts = run.predictions, run.facts
    chosen, gone = settings(run.config, run.starts)
    start = run.starts[-1] if run.starts else {}
    of_test = facts.get("command") if run.trained != run.folder else None
    return _render(
        "run.html",
        run=run,
        facts=facts,
        tested=tested,
        tiles=_tiles(run),
        charts=_charts([run]),
        best=run.best,
        matrix=_matrix(tested) if tested else None,
        pairs=tested.pairs[:PAIRS] if tested else [],
        classes=_classes(tested, facts.get("train_counts")) if tested else [],
        reliability=reliability_diagram(tested.bins, 1 / BINS) if tested else None,
        bins=BINS,
        pictures={kind: _pictures(run, kind, most) for kind, most in KINDS.items()},
        settings=chosen,
        gone=gone,
        all_settings=[(name, text(value)) for name, value in flatten(run.config).items()],
        start=start,
        commands=[*(each.get("command", "") for each in run.starts), *([of_test] if of_test else [])],
        packages=[(name, start["packages"][name]) for name in PACKAGES if name in start.get("packages", {})],
    )


def comparison_page(runs: list[Run]) -> str:
    """The page of several runs; the first is what the others are compared with."""
    if empty := [run.name for run in runs if run.predictions is None]:
        raise UserError(f"{empty[0]} was tested on no image: there is nothing to compare")
    tested = [run.predictions for run in runs if run.predictions is not None]
    folders = [run.facts.get("folder") for run in runs]
    results = [
        compare(tested[0], each, folders[0] == folder) for each, folder in zip(tested[1:], folders[1:], strict=True)
    ]
    corrected = iter(holm([result.p for result in results if result.p is not None]))
    flat = [{name: text(value) for name, value in flatten(run.config).items()} for run in runs]
    names = dict.fromkeys(name for config in flat for name in config if name != "ckpt_path")
    columns = [(name, [config.get(name, "–") for config in flat]) for name in names]
    return _render(
        "comparison.html",
        runs=runs,
        tested=tested,
        rows=_side_by_side(runs),
        results=[(run, r, None if r.p is None else next(corrected)) for run, r in zip(runs[1:], results, strict=True)],
        folders=folders,
        charts=_charts(runs),
        classes=_class_comparison(tested),
        differing=[(name, values) for name, values in columns if len(set(values)) > 1],
        styles=STYLES,
        verdict=verdict,
    )


def verdict(one: str, other: str, result: Comparison, p: float | None) -> str:
    """What a comparison allows to say, in one sentence."""
    low, high = result.interval
    clear = p < 0.05 if p is not None else low > 0 or high < 0
    if not clear:
        return f"No difference between {other} and {one} can be told from chance."
    return f"{other} is {'more' if result.difference > 0 else 'less'} accurate than {one}, beyond chance."


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """The figures a person wants first: name, value, remark."""
    facts, tested, best = run.facts, run.predictions, run.best
    tiles = []
    if tested:
        low, high = tested.interval
        remark = f"95 % interval {100 * low:.2f} – {100 * high:.2f} %"
        tiles.append(("Accuracy", percent(tested.accuracy), remark))
    if best:
        last = max(int(row["epoch"]) for row in run.metrics if "epoch" in row and "val/loss" in row) + 1
        score = f", val accuracy {percent(best['val/acc'])}" if "val/acc" in best else ""
        tiles.append(("Best epoch", f"{int(best['epoch']) + 1}", f"of {last}{score}"))
    if (seconds := facts.get("seconds_of_training")) is not None:
        tiles.append(("Training time", duration(seconds), "since it was continued" if len(run.starts) > 1 else ""))
    if "parameters" in facts:
        tiles.append(("Parameters", short(facts["parameters"]), f"{facts['net']}, {facts['parameters']:,}"))
    if tested:
        images = f"{facts.get('split', 'test')} images, {len(tested.names):,} classes"
        tiles.append(("Tested on", f"{len(tested.paths):,}", images))
        tiles.append(("Calibration error", percent(tested.calibration_error), "expected, 0 is best"))
    return tiles


def _side_by_side(runs: list[Run]) -> list[tuple[str, list[str]]]:
    columns = [{name: (value, remark) for name, value, remark in _tiles(run)} for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, [column.get(name, ("–", "")) for column in columns]) for name in names]
    losses = [(f"{run.facts['loss']:.4f}" if "loss" in run.facts else "–", "") for run in runs]
    return [*rows, ("Test loss", losses)]  # type: ignore[list-item]


def _charts(runs: list[Run]) -> list[tuple[str, Any, list[tuple[str, str]]]]:
    """Title, drawing and legend of each chart that there are figures for."""
    charts = []
    forms: dict[str, tuple[str, Callable[[float], str]]] = {
        "Loss": ("loss", lambda y: f"{y:g}"),
        "Accuracy": ("acc", lambda y: f"{100 * y:g} %"),
    }
    for title, (name, form) in forms.items():
        if len(runs) == 1:
            curves = [
                Curve("train", "s0", _points(runs[0], f"train/{name}")),
                Curve("val", "s1", _points(runs[0], f"val/{name}")),
            ]
        else:
            curves = [Curve(run.name, f"s{i % STYLES}", _points(run, f"val/{name}")) for i, run in enumerate(runs)]
            title = f"Val {title.lower()}"
        charts.append((title, curves, form))
    if len(runs) == 1:
        charts.append(
            ("Learning rate", [Curve("each step", "s0", _points(runs[0], "train/learning_rate"))], lambda y: f"{y:g}")
        )
    mark = runs[0].best["epoch"] + 1 if len(runs) == 1 and runs[0].best else None
    return [
        (title, drawing, [(curve.name, curve.style) for curve in curves if curve.name and curve.points])
        for title, curves, form in charts
        if (drawing := line_chart(curves, title, "epoch", form, mark))
    ]


def _points(run: Run, name: str) -> list[tuple[float, float]]:
    """A column of metrics.csv against the epochs that were done by then."""
    ends = {row["step"] + 1: row["epoch"] + 1 for row in run.metrics if "epoch" in row and "train/loss" in row}
    steps = np.array([0, *ends])
    epochs = np.array([0, *ends.values()])
    rate = max(steps[-1] / max(epochs[-1], 1), 1)  # beyond the last epoch that came to its end

    def epoch(step: float) -> float:
        return (
            float(np.interp(step, steps, epochs))
            if step <= steps[-1]
            else float(epochs[-1] + (step - steps[-1]) / rate)
        )

    return [(epoch(row["step"] + 1), row[name]) for row in run.metrics if name in row]


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


def _class_comparison(tested: list[Predictions]) -> list[tuple[str, list[float], float]]:
    """Name, recall in each run, and the last run's less the first's, for classes that all know."""
    recalls = [dict(zip(each.names, each.per_class["recall"].tolist(), strict=True)) for each in tested]
    rows = [(name, [recall[name] for recall in recalls]) for name in recalls[0] if all(name in r for r in recalls)]
    return sorted(((name, values, values[-1] - values[0]) for name, values in rows), key=lambda row: row[2])


def _pictures(run: Run, kind: str, most: int) -> list[dict[str, Any]]:
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
        for each, i in found[:most]
    ]


def percent(share: float, digits: int = 2) -> str:
    """0.9734 as 97.34 %; a dash where there is nothing to say."""
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f} %"


def points(difference: float) -> str:
    """0.0123 as +1.23."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def chance(p: float) -> str:
    """A p-value: = 0.032, < 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def short(number: int) -> str:
    """4275594 as 4.28 M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)


def _render(name: str, **context: Any) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("project.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "points": points, "chance": chance}
    return environment.get_template(name).render(**context)
