"""The command `predict_exported`: predict with an exported model; ONNX needs no torch."""

import csv
from collections import Counter
from pathlib import Path

from project.deploy.load import load_exported
from project.errors import UserError
from project.files import atomic_write
from project.interface import Source
from project.output import pluralize


def predict_exported(
    model: Path,
    samples: Path | None = None,
    table: Path | None = None,
    columns: dict[str, str] | None = None,
    text: str | None = None,
    output: Path = Path("predictions.csv"),
    require_signature: Path | None = None,
) -> None:
    """Predict images or texts with an exported model; writes the same table as `train.py predict`.

    Args:
        model: A model exported by `train.py export`. ONNX models need no torch.
        samples: A folder, searched recursively, or a single file; the option's name can be left out.
        table: For texts: a CSV, TSV, JSON Lines or Parquet file with one row per text.
        columns: Names of columns of the table, e.g. --columns.text review.
        text: One text.
        output: The CSV file to write: the path or text and the predicted class, labels or values, with the probability
            of each class or label; also `confident`, yes or no, and `set` if the model has these thresholds.
        require_signature: Load the model only if this public key signed it.

    Raises:
        UserError: If the model or a sample cannot be read, the model is not signed by the key, there are no samples, or
            the table cannot be written.
    """
    if sum(given is not None for given in (samples, table, text)) != 1:
        raise UserError('give the samples to predict as one of FOLDER_OR_FILE, --table FILE and --text "TEXT"')
    exported = load_exported(model, require_signature=require_signature)
    inputs, target = exported.description.input, exported.description.target
    notes: Counter[str] = Counter()
    batches, count, last = inputs.batches(Source(samples, table, text, columns or {}), notes), 0, None
    with (
        atomic_write(output) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow([inputs.key, *target.columns])
        for names, raw in batches:
            for name, scores in zip(names, exported.scores(raw), strict=True):
                writer.writerow([name, *target.row(scores)])
                count, last = count + 1, (name, scores)
    if count == 1 and last:
        print(f"{last[0]}: {target.describe(last[1])}")
    for note, changed in (+notes).most_common():
        print(f"{pluralize(changed, inputs.kind)}: {note}")
    print(f"predictions of {pluralize(count, inputs.kind)}: {output}")
