"""`python -m project model_card RUN`: what to know of a model before using it, as far as it was measured."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from project.audit.groups import GAPS, GROUPS
from project.audit.leak_test import LEAK, sentences
from project.audit.robustness import ROBUSTNESS
from project.errors import UserError
from project.files import read_table, write_text
from project.output import format_duration
from project.runs.checkpoints import load_checkpoint
from project.runs.folder import TEST_SUMMARY
from project.runs.predictions import Predictions
from project.runs.read import Run, read_run

PACKAGES = ("torch", "torchvision", "lightning", "timm")


def model_card(run: Path, output: Path | None = None) -> None:
    """Write model_card.md, in the form of the Hugging Face Hub, from what a run and its audits left.

    Sections after Mitchell et al., Model Cards for Model Reporting, 2019. What was not measured is said not to be.

    Args:
        run: The folder of a run that was tested: logs/NAME/version_N, or last.
        output: The file to write; by default model_card.md in the run's folder. One that is there is kept unless named.

    Raises:
        UserError: nothing was tested in the run, or the card is there and may have been filled in.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = read_run(run)
    file = output or found.folder / "model_card.md"
    if found.predictions is None:
        raise UserError(f"{found.folder} was tested on no image: there is nothing to say of the model")
    if output is None and file.exists():
        raise UserError(f"{file} is there, and you may have filled it in: give another by --output FILE.md")
    environment = Environment(loader=PackageLoader("project.audit"), trim_blocks=True, undefined=StrictUndefined)
    environment.filters["percent"] = lambda share: "–" if share != share else f"{100 * share:.1f} %"
    environment.filters["name"] = lambda folder: Path(folder or "").name
    write_text(file, environment.get_template("model_card.md").render(_facts(found, found.predictions)))
    print(f"model card {file}")


def _facts(run: Run, tested: Predictions) -> dict[str, Any]:
    facts, start = defaultdict(lambda: None, run.facts), run.starts[-1] if run.starts else {}
    counts, packages, hardware = facts["train_counts"] or [], start.get("packages", {}), start.get("hardware") or {}
    parts = [f"{facts['net']}, {facts['parameters']:,} parameters"] if facts["net"] else ["Net not recorded"]
    if facts["image_size"]:
        parts.append(f"images of {facts['image_size']} x {facts['image_size']} pixels")
    seconds, checkpoint, findings = (
        facts["seconds_of_training"],
        Path(facts["checkpoint"] or ""),
        run.folder / TEST_SUMMARY,
    )
    kept = load_checkpoint(checkpoint) if checkpoint.is_file() else None
    at_training = run.trained or run.folder
    leak = at_training / LEAK
    robustness = _rows(at_training / ROBUSTNESS)
    corrupted = [float(row["accuracy"]) for row in robustness if row["kind"] == "corruption"]
    brier = [float(row["test/brier"]) for row in _rows(run.folder / "metrics.csv") if row.get("test/brier")]
    return {
        "run": run,
        "facts": facts,
        "privacy": (facts["notes"] or {}).get("privacy"),
        "tested": tested,
        "start": start,
        "front": _front_matter(run, tested),
        "net": ", ".join(parts),
        "sizes": ", ".join(f"{split} {size:,}" for split, size in (facts["split_sizes"] or {}).items()),
        "by_class": ", ".join(f"{name} {count:,}" for name, count in zip(tested.names, counts, strict=False)),
        "groups": _rows(run.folder / GROUPS),
        "gaps": _rows(run.folder / GAPS),
        "brier": brier[-1] if brier else None,
        "temperature": round(float(kept["state_dict"].get("task.temperature", 1)), 4) if kept else None,
        "threshold": kept["hyper_parameters"].get("confidence_threshold") if kept else None,
        "calibrated_later": kept and findings.exists() and checkpoint.stat().st_mtime > findings.stat().st_mtime,
        "leak": sentences(json.loads(leak.read_text())) if leak.is_file() else [],
        "robustness": robustness,
        "mean_of_corruptions": fmean(corrupted) if corrupted else None,
        "time": f"{format_duration(seconds)}{' since it was continued' if len(run.starts) > 1 else ''}"
        if seconds
        else "",
        "hardware": ", ".join(filter(None, [hardware.get("processor"), *hardware.get("gpus", []), facts["device"]])),
        "software": ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages),
        "commit": f"commit {start['git']['commit']}" if start.get("git") else "",
    }


def _front_matter(run: Run, tested: Predictions) -> str:
    task, data = "image-classification", Path(run.facts.get("folder") or "unknown").name
    dataset = {"name": data, "type": data, "split": run.facts.get("split") or "test"}
    metrics = [{"type": "accuracy", "value": round(tested.accuracy, 6)}]
    result = {"task": {"type": task}, "dataset": dataset, "metrics": metrics}
    front: dict[str, Any] = {"pipeline_tag": task, "tags": [task, "pytorch"], "metrics": ["accuracy"]}
    front["model-index"] = [{"name": run.name, "results": [result]}]
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none if it is not there."""
    return read_table(file, []) if file.is_file() else []
