"""Equal texts: they stay in one split, and contradicting labels are reported."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from project.datamodules.index import Index, StringArray
from project.output import pluralize


def normal_form(text: str) -> str:
    """Return the form in which two texts are compared: without differences in case, whitespace and punctuation."""
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split()) or text


def number_distinct(texts: Iterable[str]) -> NDArray[np.int64]:
    """Return the number of each text among the distinct ones, int64 (N,), in the order of their first occurrence."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(normal_form(text), len(seen)) for text in texts], np.int64)


def split_distinct(index: Index, draw: Callable[[Index], Index]) -> Index:
    """Assign splits such that equal texts without a given split are in one split.

    Args:
        index: The texts.
        draw: Assigns a split to every sample of an index.
    """
    number = number_distinct(index.keys)
    if index.groups is not None:
        return draw(replace(index, groups=merge_groups(index.groups, number)))
    given = np.full(number.max(initial=0) + 1, "", index.splits.dtype)
    known = np.flatnonzero((index.splits != "") & (index.splits != "skip"))[::-1]
    given[number[known]] = index.splits[known]
    splits = np.where(index.splits == "", given[number], index.splits)
    # One row for each pair of text and split; the others follow it.
    names, code = np.unique(splits, return_inverse=True)
    _, first, pair = np.unique(number * len(names) + code, return_index=True, return_inverse=True)
    rows = np.sort(first)
    drawn = draw(take(replace(index, splits=splits), rows))
    return replace(index, splits=drawn.splits[np.searchsorted(rows, first[pair])])


def merge_groups(groups: NDArray[np.str_], number: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return groups in which those that share a text are one: the connected components of groups and texts."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names, group = np.unique(groups, return_inverse=True)
    size = len(names) + int(number.max(initial=0)) + 1
    edges = coo_matrix((np.ones(len(group)), (group, len(names) + number)), (size, size))
    component = connected_components(edges, directed=False)[1][: len(names)]
    first = np.unique(component, return_index=True)[1]
    return np.asarray(names[first[component]][group])


def take(index: Index, rows: NDArray[np.int64]) -> Index:
    """Return the index of some rows."""
    return replace(
        index,
        keys=StringArray(index.keys[row] for row in rows.tolist()),
        labels=index.labels[rows],
        splits=index.splits[rows],
        groups=None if index.groups is None else index.groups[rows],
        balance=None if index.balance is None else index.balance[rows],
    )


def warn_about_duplicates(index: Index) -> None:
    """Warn about equal texts in several given splits (data leakage) and with contradicting labels."""
    number = number_distinct(index.keys)
    order = np.argsort(number, kind="stable")
    order = order[index.splits[order] != "skip"]
    same = number[order][1:] == number[order][:-1]
    one, other = order[:-1][same], order[1:][same]
    across, conflicting = index.splits[one] != index.splits[other], index.differ(one, other)
    for found, problem in ((across, "are in several splits (data leakage)"), (conflicting, "have different labels")):
        if texts := np.unique(number[one[found]]).tolist():
            example = index.keys[int(one[found][0])]
            shown = repr(example if len(example) <= 40 else f"{example[:40]}...")
            fix = f"list them with `train.py check_texts {index.root}`"
            rank_zero_warn(f"{pluralize(len(texts), 'text')} that occur several times {problem}, e.g. {shown}: {fix}")
