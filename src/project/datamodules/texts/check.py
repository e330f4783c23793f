"""Validation of text datasets: the command `check_texts`."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from project.datamodules.findings import Finding, pair_finding, report_findings, small_classes
from project.datamodules.index import Index, describe_absent
from project.datamodules.labels import LabelOptions, TargetOption
from project.datamodules.split import complete_splits
from project.datamodules.texts.duplicates import normal_form, number_distinct, split_distinct
from project.datamodules.texts.near import near_pairs
from project.datamodules.texts.origin import TextColumns, TextOrigin
from project.datamodules.texts.scripts import count_scripts, find_damage
from project.errors import UserError
from project.images import describe_skipped
from project.interface import SPLITS
from project.output import printable

SIMILARITY = 0.8  # minimum Jaccard similarity of the n-grams of near duplicates
UNCOMMON = 0.01  # maximum fraction of the texts that an uncommon script has
RATIO = 2.0  # of the median lengths of two classes whose lengths differ
DEFAULT_COLUMNS = TextColumns()


def check_texts(
    root: Path,
    columns: TextColumns = DEFAULT_COLUMNS,
    target: TargetOption = "auto",
    label_separator: str | None = None,
    out: Path = Path("logs/check_texts"),
    min_texts: int = 10,
    max_bytes: int = 1024,
) -> None:
    """Validate a dataset of texts: print counts, lengths and scripts, report errors and warnings.

    Errors (exit code 1) are duplicates across splits (data leakage), equal texts with conflicting labels, groups across
    splits, and classes with too few texts. Warnings are other duplicates, near duplicates with different labels, empty
    texts, damaged encoding, markup, uncommon scripts, and classes whose lengths differ. Texts are equal if they differ
    only in case, width, whitespace and punctuation, and near duplicates if at least 80 % of their n-grams of bytes are
    shared. Writes findings.csv.

    Args:
        root: CSV, TSV, JSON Lines or Parquet file, or a folder of .txt files in a form that `fit` accepts. Without
            splits, texts are split as by `fit`.
        columns: Names of the columns of the table.
        target: What is predicted, as `data.target` of `fit`.
        label_separator: Separator of several labels in a cell of the table.
        out: Output directory.
        min_texts: Minimum number of training texts per class.
        max_bytes: Length after which `fit` cuts texts, to tell how many.

    Raises:
        UserError: The dataset has no valid structure.
        SystemExit: Code 1, there are errors.
    """
    folder, table = (str(root), None) if root.is_dir() else (None, str(root))
    options = LabelOptions(target, label_separator)
    index = TextOrigin(folder, table, columns, None, Path(), options, option="--columns").index(None)
    empty = np.flatnonzero(index.keys.lengths == 0)
    splits = index.splits.astype("<U5")
    splits[empty] = "skip"
    index = replace(index, splits=splits)
    findings = [Finding("empty", index.place(row)) for row in empty.tolist()]
    try:
        draw = partial(complete_splits, val_fraction=0.15, test_fraction=0.15, seed=0)
        index = split_distinct(index, draw)
    except UserError:  # too few texts to split, which is reported as a finding
        index = replace(index, splits=np.where(index.splits == "", "train", index.splits))
    findings += [*_duplicates(index), *_groups(index)]
    for kind, rows, details in find_damage(index.keys):
        findings += [Finding(kind, index.place(row), "", note) for row, note in zip(rows, details, strict=True)]
    findings += [*_uncommon_scripts(index), *_lengths(index), *small_classes(index, min_texts)]
    _print_counts(index, max_bytes)
    out.mkdir(parents=True, exist_ok=True)
    report_findings(findings, out, "place")


def shorten(text: str) -> str:
    """Return the start of a text for display."""
    return printable(repr(text if len(text) <= 60 else f"{text[:60]}..."))


def _duplicates(index: Index) -> Iterator[Finding]:
    rows = np.concatenate([index.rows(split) for split in SPLITS])  # compared with a text of train if there is one
    number = number_distinct(index.keys[row] for row in rows.tolist())
    first = rows[np.unique(number, return_index=True)[1]]
    for row, original in zip(rows.tolist(), first[number].tolist(), strict=True):
        if row != original:
            yield pair_finding(index, "exact duplicate", original, row, shorten(index.keys[row]))
    pairs, similarity = near_pairs([normal_form(index.keys[row]) for row in first.tolist()], SIMILARITY)
    if not len(pairs):
        return
    one, other = first[pairs.T]
    across = index.splits[one] != index.splits[other]
    # One finding for each text: across splits if there is one, for the text that is evaluated; else the most similar.
    order = np.lexsort((-similarity, ~across, other))
    order = order[np.unique(other[order], return_index=True)[1]]
    differ = index.differ(one, other)
    for pair in order.tolist():
        a, b, kind, notes = int(one[pair]), int(other[pair]), "near duplicate", []
        if differ[pair]:
            notes, kind = [" and ".join(map(index.label_text, (a, b)))], "near duplicate with different labels"
        if across[pair]:
            notes, kind = [*notes, f"{index.splits[a]} and {index.splits[b]}"], "near duplicate across splits"
        notes += [f"similarity {similarity[pair]:.2f}", shorten(index.keys[b])]
        yield Finding(kind, index.place(a), index.place(b), ", ".join(notes))


def _groups(index: Index) -> Iterator[Finding]:
    if index.groups is None:
        return
    used = index.splits != "skip"
    names, splits = np.unique(np.stack([index.groups[used], index.splits[used]]), axis=1)
    for name in np.unique(names[1:][names[1:] == names[:-1]]).tolist():
        yield Finding("group across splits", name, "", " and ".join(splits[names == name].tolist()))


def _uncommon_scripts(index: Index) -> Iterator[Finding]:
    names, counts = count_scripts(index.keys)
    written = counts.sum(1) > 0
    if not written.any():
        return
    main = np.where(written, counts.argmax(1), -1)
    texts = np.bincount(main[written], minlength=len(names))
    few = (texts <= max(1, UNCOMMON * texts.sum())) & (texts < texts.max())
    most = names[int(texts.argmax())]
    for script in np.flatnonzero(few).tolist():
        for row in np.flatnonzero(main == script).tolist():
            yield Finding("uncommon script", index.place(row), "", f"{names[script]}, mostly {most}")


def _lengths(index: Index) -> Iterator[Finding]:
    used = index.splits != "skip"
    median = {
        name: np.median(index.keys.lengths[rows[used[rows]]]) for name, rows in index.class_rows if used[rows].any()
    }
    if len(median) > 1:
        low, high = min(median, key=median.__getitem__), max(median, key=median.__getitem__)
        if median[high] > RATIO * median[low]:
            detail = f"median {median[low]:,.0f} and {median[high]:,.0f} bytes: a model may learn the length"
            yield Finding("lengths of classes differ", low, high, detail)


def _print_counts(index: Index, max_bytes: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{index.root}: {len(index.keys):,} texts", title_justify="left")
    first = {"classes": "class", "multilabel": "label", "values": ""}[index.kind]
    for heading in (first, *SPLITS, "median bytes", "95 %", "longest", "scripts"):
        table.add_column(heading, justify="left" if heading in (first, "scripts") else "right")
    lengths, used = index.keys.lengths, index.splits != "skip"
    names, counts = count_scripts(index.keys)
    for name, labeled in [*index.class_rows, ("all", np.arange(len(index.keys)))]:
        rows = labeled[used[labeled]]
        numbers = [f"{np.count_nonzero(index.splits[rows] == split):,}" for split in SPLITS]
        sizes = [f"{size:,.0f}" for size in np.quantile(lengths[rows], (0.5, 0.95, 1))] if len(rows) else ["", "", ""]
        total = counts[rows].sum(0)
        shares = [(total[i] / max(1, total.sum()), names[i]) for i in np.argsort(-total)[:3].tolist()]
        scripts = ", ".join(f"{script} {share:.1%}" for share, script in shares if share >= 0.0005)
        table.add_row(printable(name), *numbers, *sizes, scripts)
    Console(soft_wrap=True, markup=False).print(table)
    distinct = int(number_distinct(index.keys[row] for row in np.flatnonzero(used).tolist()).max(initial=-1)) + 1
    print(f"distinct  {distinct:,}, apart from case, width, whitespace and punctuation")
    longer = int((lengths > max_bytes).sum())
    print(f"cut       {longer:,} ({longer / len(lengths):.1%}) after {max_bytes:,} bytes (data.max_bytes)")
    for line in (*(describe_absent(index, split) for split in SPLITS[1:]), describe_skipped(index.skipped)):
        if line:
            print(line)
