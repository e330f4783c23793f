"""`python -m project model_card RUN`: what to know of a model before using it, as far as it was measured."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

from project.audit.groups import GAPS, GROUPS
from project.audit.leak_test import LEAK, sentences
from project.audit.robustness import ROBUSTNESS, Row, mean_of_corruptions
from project.callbacks.findings import FINDINGS
from project.checkpoints import load_checkpoint
from project.errors import UserError
from project.files import write_text
from project.report.read import Run, read_run
from project.words import duration

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
    found = read_run(run)
    file = output or found.folder / "model_card.md"
    if found.predictions is None:
        raise UserError(f"{found.folder} was tested on no image: there is nothing to say of the model")
    if output is None and file.exists():
        raise UserError(f"{file} is there, and you may have filled it in: give another by --output FILE.md")
    write_text(file, _render(found))
    print(f"model card {file}")


def _render(run: Run) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("project.audit"), trim_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"percent": _percent, "name": lambda folder: Path(folder or "").name}
    environment.globals |= {"percent": _percent, "count": lambda n, one, more: f"{n:,} {one if n == 1 else more}"}
    return environment.get_template("model_card.md").render(_facts(run))


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"


def _facts(run: Run) -> dict[str, Any]:
    tested, start = run.predictions, run.starts[-1] if run.starts else {}
    assert tested is not None
    keys = (
        "privacy",
        "folder",
        "split",
        "image_size",
        "precision",
        "net",
        "parameters",
        "split_sizes",
        "train_counts",
        "device",
    )
    facts = {**dict.fromkeys(keys), **run.facts}
    sizes, counts, packages = facts["split_sizes"] or {}, facts["train_counts"] or [], start.get("packages", {})
    parts = [f"{facts['net']}, {facts['parameters']:,} parameters"] if facts["net"] else ["Net not recorded"]
    if facts["image_size"]:
        parts.append(f"images of {facts['image_size']} x {facts['image_size']} pixels")
    seconds = facts.get("seconds_of_training")
    kept = load_checkpoint(Path(facts["checkpoint"])) if _is_file(facts.get("checkpoint")) else None
    measured = _rows((run.trained or run.folder) / ROBUSTNESS)
    robustness = [
        Row(row["kind"], row["name"], int(row["severity"]), float(row["accuracy"]), int(row["images"]))
        for row in measured
    ]
    leak = (run.trained or run.folder) / LEAK
    hardware = start.get("hardware") or {}
    return {
        "run": run,
        "facts": facts,
        "tested": tested,
        "names": tested.names,
        "start": start,
        "front": _front_matter(run),
        "net": ", ".join(parts),
        "sizes": ", ".join(f"{split} {size:,}" for split, size in sizes.items()),
        "by_class": ", ".join(f"{name} {count:,}" for name, count in zip(tested.names, counts, strict=False)),
        "classes": [
            {"name": name.replace("|", "\\|"), "images": int(tested.per_class["images"][i])}
            | {key: float(tested.per_class[key][i]) for key in ("precision", "recall", "f1")}
            for i, name in enumerate(tested.names)
        ],
        "pairs": ", ".join(f"{pair.label} for {pair.predicted} ({pair.images})" for pair in tested.pairs[:5]),
        "groups": _rows(run.folder / GROUPS),
        "gaps": _rows(run.folder / GAPS),
        "brier": next(
            (float(row["test/brier"]) for row in _rows(run.folder / "metrics.csv")[::-1] if row.get("test/brier")), None
        ),
        "temperature": round(float(kept["state_dict"].get("temperature", 1)), 4) if kept else None,
        "threshold": kept["hyper_parameters"].get("sure_above") if kept else None,
        "calibrated_later": kept is not None and _later(Path(facts["checkpoint"]), run.folder / FINDINGS),
        "leak": sentences(json.loads(leak.read_text())) if leak.is_file() else [],
        "robustness": robustness,
        "robust_folder": measured[0]["folder"] if measured else "",
        "mean_of_corruptions": mean_of_corruptions(robustness) if robustness else None,
        "time": f"{duration(seconds)}{' since it was continued' if len(run.starts) > 1 else ''}" if seconds else "",
        "hardware": ", ".join(filter(None, [hardware.get("processor"), *hardware.get("gpus", []), facts["device"]])),
        "software": ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages),
        "commit": f"commit {start['git']['commit']}" if start.get("git") else "",
    }


def _front_matter(run: Run) -> str:
    tested, data = run.predictions, Path(run.facts.get("folder") or "unknown").name
    assert tested is not None
    figures = [{"type": "accuracy", "value": round(tested.accuracy, 6)}]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data, "split": run.facts.get("split") or "test"},
        "metrics": figures,
    }
    front = {
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pytorch"],
        "metrics": ["accuracy"],
        "model-index": [{"name": run.name, "results": [result]}],
    }
    return str(yaml.safe_dump(front, sort_keys=False, allow_unicode=True))


def _is_file(path: str | None) -> bool:
    return path is not None and Path(path).is_file()


def _later(file: Path, other: Path) -> bool:
    return other.exists() and file.stat().st_mtime > other.stat().st_mtime


def _rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none if it is not there."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))
