"""The command `train.py explain` for texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from project.errors import UserError
from project.explain.features import embed, write_embeddings
from project.explain.samples import AREAS, MAX_OUTPUTS, cells, describe, evenly_spaced, is_known, print_areas
from project.explain.texts.attribution import (
    MAX_WORDS,
    METHODS,
    Method,
    attribution,
    faithfulness,
    random_attribution,
    words_of,
)
from project.explain.texts.evidence import write_evidence
from project.explain.texts.overlays import highlighted
from project.explain.texts.page import ExplainedText, write_page
from project.files import write_table
from project.interface import Batch
from project.modules import Classifier
from project.output import pluralize
from project.runs.folder import reserve_version
from project.runs.job import Trained

MAX_TEXTS = 200  # maximum number of texts for the words with the most evidence


def explain(
    trained: Trained, batch: Batch, count: int, methods: Sequence[str] | None, class_name: str | None, ablation: bool
) -> None:
    """Write texts with highlighted words, a table of them, and the words with the most evidence for each output.

    Args:
        trained: The loaded model and its dataset.
        batch: The texts to choose from.
        count: Maximum number of texts to explain, evenly spaced.
        methods: Attribution methods; by default `occlusion`.
        class_name: Also explain this class, label or value for each text.
        ablation: Must be False.

    Raises:
        UserError: There is no such method for texts, or ablation is requested.
    """
    if unknown := set(methods or ()).difference(METHODS):
        raise UserError(f"--methods {unknown.pop()} is for images; for texts, use {' or '.join(METHODS)}")
    if ablation:
        raise UserError("--ablation is for images: leave it out for a model of texts")
    chosen = [method for method in METHODS if method in (methods or ["occlusion"])]
    model, task, data = trained.module, trained.module.task, trained.data
    found = _explain_texts(model, evenly_spaced(batch, count), chosen, class_name)
    # Created now, so that a failure leaves no empty folder.
    root = Path(trained.trainer.default_root_dir)
    folder = root / "explain" / f"version_{reserve_version(root, 'explain')}"
    write_table(folder / "explanations.csv", [cells(row, task) for row in found.rows])
    print_areas(found.predicted_rows, task)
    source = f" of {data.folder}" if data.folder.name else ""
    print(f"\n{pluralize(len(found.shown), 'text')}{source}: {folder / 'explanations.html'}, explanations.csv")
    if found.cut:
        limit = f"{MAX_OUTPUTS} {task.target.kind} each of {pluralize(found.cut, 'text')} are explained"
        print(f"{limit}: --class_name NAME adds one")
    if found.long:
        print(f"{pluralize(found.long, 'text')} of more than {MAX_WORDS} words explained by spans of words")
    page: dict[str, Any] = {"about": f"Model: {trained.checkpoint}.", "output_column": task.explained_columns[1]}
    if len(batch.index) > 1:
        page["table"] = write_evidence(model, evenly_spaced(batch, MAX_TEXTS), chosen[0], folder)
        write_embeddings(folder, embed(model, batch.inputs), None, describe(trained, batch))
        print(f"embeddings of {len(batch.index)} texts in TensorBoard's projector")
    write_page(folder / "explanations.html", found.shown, **page)


class _Explained(NamedTuple):
    """Rows of the table, those of predictions, the page; numbers of texts with further predictions, and in spans."""

    rows: list[dict[str, Any]]
    predicted_rows: list[dict[str, Any]]
    shown: list[ExplainedText]
    cut: int
    long: int


def _explain_texts(model: Classifier, batch: Batch, methods: Sequence[Method], class_name: str | None) -> _Explained:
    """Explain the predictions for texts, and the class, label or value of this name."""
    task = model.task
    true_column, output_column, score_column = task.explained_columns
    with torch.no_grad():
        predictions = torch.cat([model.predictions(part) for part in batch.inputs.split(64)])
    explained, known = task.explained(predictions), is_known(batch.target).tolist()
    rows, predicted_rows, shown, long = [], [], [], 0
    for number, sample in enumerate(batch.inputs):
        words, whole = words_of(model, sample)
        long += not whole
        outputs = explained[number][:MAX_OUTPUTS]
        wanted = list(dict.fromkeys([*outputs, *([] if class_name is None else [task.target.names.index(class_name)])]))
        truth, predicted = task.target_text(batch.target[number]), task.predicted_text(predictions[number])
        maps = {method: attribution(model, words, wanted, method).cpu() for method in methods}
        drawn = []
        for place, output in enumerate(wanted):
            values = [*(maps[method][place] for method in methods), random_attribution(words, number)]
            *areas, baseline = faithfulness(model, words, torch.stack(values), output)
            name, score = task.target.names[output], float(predictions[number, output])
            for method, each, own in zip(methods, values, areas, strict=False):
                row: dict[str, Any] = {"text": "".join(words), true_column: truth, "predicted": predicted}
                row |= {"method": method, output_column: name, score_column: score}
                row |= zip(AREAS, [*own, *baseline], strict=True)
                rows.append({**row, "words": _strongest(words, each)})
                predicted_rows += rows[-1:] if output in outputs else []
                drawn.append((f"{name} {score:{task.score_format}}, {method}", highlighted(words, each)))
        title = f"predicted {predicted or '-'}"
        shown.append(ExplainedText(f"{true_column} {truth or '-'}, {title}" if known[number] else title, drawn))
    return _Explained(rows, predicted_rows, shown, sum(len(each) > MAX_OUTPUTS for each in explained), long)


def _strongest(words: Sequence[str], values: Tensor, count: int = 5) -> str:
    """Return the words with the largest attributions, each with its value."""
    order = values.abs().argsort(descending=True, stable=True)[:count].tolist()
    return "; ".join(f"{words[place].strip()} {float(values[place]):+.3g}" for place in order)
