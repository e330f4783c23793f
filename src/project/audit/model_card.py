"""The command `model_card`: a model card of a tested run."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml

from project.audit.groups import GAPS, GROUPS
from project.audit.leak_test import LEAK_TEST, describe
from project.audit.read_results import read_results
from project.audit.results import ClassResults, LabelResults, Results, ValueResults
from project.audit.robustness import ROBUSTNESS
from project.errors import UserError
from project.files import read_table, write_text
from project.output import format_duration
from project.runs.checkpoints import load_checkpoint
from project.runs.folder import TEST_SUMMARY
from project.runs.read import Run, read_run

KINDS = {ClassResults: "classes", LabelResults: "labels", ValueResults: "values"}
PACKAGES = ("torch", "torchvision", "lightning", "timm")


def model_card(run: Path, output: Path | None = None) -> None:
    """Write a model card for the Hugging Face Hub from the files of a run.

    Sections follow Mitchell et al., Model Cards for Model Reporting, 2019; missing measurements are marked as such.

    Args:
        run: Folder of a tested run, e.g. logs/NAME/version_N, or `last`.
        output: File to write; by default model_card.md in the run folder, which is not overwritten if it exists.

    Raises:
        UserError: the run has no tested samples, or the default file exists.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loaded = read_run(run)
    file = output or loaded.folder / "model_card.md"
    results = read_results(loaded)
    if output is None and file.exists():
        raise UserError(
            f"{file} exists and is not overwritten, as it may have been edited: give another file with --output FILE.md"
        )
    environment = Environment(loader=PackageLoader("project.audit"), trim_blocks=True, undefined=StrictUndefined)
    environment.filters["percent"] = lambda share: "–" if share != share else f"{100 * share:.1f} %"
    environment.filters["number"] = _number
    environment.filters["name"] = lambda folder: Path(folder or "").name
    write_text(file, environment.get_template("model_card.md").render(_context(loaded, results)))
    print(f"model card {file}")


def _context(run: Run, results: Results) -> dict[str, Any]:
    facts, start = defaultdict(lambda: None, run.facts), run.starts[-1] if run.starts else {}
    counts, packages, hardware = (
        run.target.get("train_counts", []),
        start.get("packages", {}),
        start.get("hardware") or {},
    )
    sample = facts["kind"] or "image"
    parts = [f"{facts['net']}, {facts['parameters']:,} parameters"] if facts["net"] else ["Network not recorded"]
    if facts["input"]:
        parts.append(f"{sample}s of {facts['input']}")
    seconds, file, summary = facts["seconds_of_training"], Path(facts["checkpoint"] or ""), run.folder / TEST_SUMMARY
    checkpoint = load_checkpoint(file) if file.is_file() else None
    training_run = run.trained or run.folder
    leak_test = training_run / LEAK_TEST
    robustness = _rows(training_run / ROBUSTNESS)
    form, everyone = results.form(results.metrics[0]), np.zeros(len(results), np.int64)
    one_metric = not isinstance(results, ValueResults) or len(results.columns) == 1
    metric = next((name for name in ("accuracy", "F1", "MAE", "loss") if robustness and name in robustness[0]), "")
    corrupted = [float(row[metric]) for row in robustness if row["kind"] == "corruption"]
    brier = [float(row["test/brier"]) for row in _rows(run.folder / "metrics.csv") if row.get("test/brier")]
    return {
        "run": run,
        "facts": facts,
        "privacy": (facts["notes"] or {}).get("privacy"),
        "results": results,
        "kind": KINDS[type(results)],
        "sample": sample,
        "tested": run.predictions,
        "form": form,
        "names": results.columns,
        "overall": [_number(value, form) for value in _overall(results)],
        "interval": [_number(bound, form) for bound in results.interval()] if one_metric else [],
        "per_value": np.stack([results.rates(name, everyone, 1)[0] for name in results.metrics], 1).tolist()
        if isinstance(results, ValueResults)
        else [],
        "scalars": {name: value for name, value in (facts["scalars"] or {}).items() if name != "loss"},
        "start": start,
        "front": _front_matter(run, results),
        "net": ", ".join(parts),
        "sizes": ", ".join(f"{split} {size:,}" for split, size in (facts["split_sizes"] or {}).items()),
        "by_class": ", ".join(f"{name} {count:,}" for name, count in zip(results.columns, counts, strict=False)),
        "groups": _rows(run.folder / GROUPS),
        "gaps": _rows(run.folder / GAPS),
        "brier": brier[-1] if brier else None,
        "temperature": round(float(checkpoint["state_dict"].get("task.temperature", 1)), 4) if checkpoint else None,
        "thresholds": _target(checkpoint).get("thresholds"),
        "set_threshold": _target(checkpoint).get("set_threshold"),
        "threshold": _target(checkpoint).get("confidence_threshold"),
        "calibrated_later": checkpoint and summary.exists() and file.stat().st_mtime > summary.stat().st_mtime,
        "leak_test": describe(json.loads(leak_test.read_text()), f"{sample}s") if leak_test.is_file() else [],
        "robustness": robustness,
        "robustness_metric": metric,
        "mean_corrupted": fmean(corrupted) if corrupted else None,
        "time": f"{format_duration(seconds)}{' since the last resume' if len(run.starts) > 1 else ''}"
        if seconds
        else "",
        "hardware": ", ".join(filter(None, [hardware.get("processor"), *hardware.get("gpus", []), facts["device"]])),
        "software": ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages),
        "commit": f"commit {start['git']['commit']}" if start.get("git") else "",
    }


def _overall(results: Results) -> list[float]:
    """Return the first metric on all images, one number or one for each value."""
    overall: list[float] = results.rates(results.metrics[0], np.zeros(len(results), np.int64), 1)[0].tolist()
    return overall


def _number(value: float | str, form: str) -> str:
    """Return a number in a format such as `.1%` or `.4g`."""
    value = float(value)
    return "–" if value != value else f"{value:{form}}".replace("%", " %")


def _front_matter(run: Run, results: Results) -> str:
    metric = {"accuracy": "accuracy", "F1": "f1", "MAE": "mae"}[results.metrics[0]]
    kind = run.facts.get("kind", "image")
    task = f"{kind}-{'regression' if isinstance(results, ValueResults) else 'classification'}"
    data = Path(run.facts.get("folder") or "unknown").name
    dataset = {"name": data, "type": data, "split": run.facts.get("split") or "test"}
    metrics = [{"type": metric, "value": round(value, 6)} for value in _overall(results)]
    result = {"task": {"type": task}, "dataset": dataset, "metrics": metrics}
    # The Hub has no pipeline for regression from images or texts.
    front: dict[str, Any] = {} if isinstance(results, ValueResults) else {"pipeline_tag": task}
    front |= {"tags": [task, "pytorch"], "metrics": [metric]}
    front["model-index"] = [{"name": run.name, "results": [result]}]
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV, or none if the file is missing."""
    return read_table(file, []) if file.is_file() else []


def _target(checkpoint: dict[str, Any] | None) -> dict[str, Any]:
    return {} if checkpoint is None else checkpoint["data_description"]["target"]["init_args"]
