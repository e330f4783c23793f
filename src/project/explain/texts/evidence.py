"""Words with the most evidence for each output, over many texts."""

from collections import defaultdict
from pathlib import Path

import torch

from project.datamodules.texts.duplicates import normal_form
from project.explain.samples import MAX_OUTPUTS, cells
from project.explain.texts.attribution import Method, attribution, words_of
from project.files import write_table
from project.interface import Batch
from project.modules import Classifier

TOP, SHOWN, MAX_ROWS = 50, 8, 12  # words of an output in the table and on the screen, and outputs on the screen
Evidence = dict[int, list[tuple[float, int, str]]]


def find_evidence(model: Classifier, batch: Batch, method: Method) -> Evidence:
    """Return the attribution of each predicted output to the words of texts: its sum, the number of texts, the word.

    Words that differ only in case and punctuation are one. A word of a single text is no evidence for a pattern: such
    words are left out of each output that has others. The words are in the order of the sum, largest first.
    """
    evidence = defaultdict[int, dict[str, list[float]]](lambda: defaultdict(list))
    with torch.no_grad():
        predictions = torch.cat([model.predictions(part) for part in batch.inputs.split(64)])
    for sample, explained in zip(batch.inputs, model.task.explained(predictions), strict=True):
        words, outputs = words_of(model, sample)[0], explained[:MAX_OUTPUTS]
        for output, values in zip(outputs, attribution(model, words, outputs, method), strict=True):
            of_text = defaultdict[str, float](float)
            for word, value in zip(words, values.tolist(), strict=True):
                of_text[normal_form(word.strip())] += value
            for word, value in of_text.items():
                evidence[output][word].append(value)
    found = {}
    for output, by_word in sorted(evidence.items()):
        repeated = {word: values for word, values in by_word.items() if len(values) > 1} or by_word
        found[output] = sorted(((sum(values), len(values), word) for word, values in repeated.items()), reverse=True)
    return found


def write_evidence(model: Classifier, batch: Batch, method: Method, folder: Path) -> list[tuple[str, list[str]]]:
    """Write words.csv with the top words of each output; print and return the first ones, by name of the output."""
    task, output_column = model.task, model.task.explained_columns[1]
    rows, shown = [], []
    for output, words in find_evidence(model, batch, method).items():
        name = task.target.names[output]
        for total, texts, word in words[:TOP]:
            rows.append({output_column: name, "word": word, "texts": texts, "mean": total / texts, "sum": total})
        shown.append((name, [word for total, _, word in words[:SHOWN] if total > 0]))
    write_table(folder / "words.csv", [cells(row, task) for row in rows], [output_column])
    print(f"\nwords with the most evidence in {len(batch.index)} texts by {method}: {folder / 'words.csv'}")
    for name, top in shown[:MAX_ROWS]:
        print(f"  {name:<20} {', '.join(top)}")
    if len(shown) > MAX_ROWS:
        print(f"  and {len(shown) - MAX_ROWS} more {task.target.kind}")
    return shown
