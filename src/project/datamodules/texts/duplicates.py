"""Equal texts: they stay in one split, and contradicting labels are reported."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from project.datamodules.index import Index, StringArray
from project.output import pluralize


class _Blanks(dict[int, int]):
    """Translation of punctuation and whitespace to blanks; letters, marks, symbols and emoji are kept."""

    def __missing__(self, code: int) -> int:
        category = unicodedata.category(chr(code))
        self[code] = 32 if category[0] in "PZ" or category in ("Cc", "Cf") else code
        return self[code]


BLANKS = _Blanks()


def normal_form(text: str) -> str:
    """Return the form in which texts are compared: without differences in case, width, whitespace and punctuation."""
    form = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(form.translate(BLANKS).split()) or text


def number_distinct(texts: Iterable[str]) -> NDArray[np.int64]:
    """Return the number of each text among the distinct ones, int64 (N,), in the order of their first occurrence."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(normal_form(text), len(seen)) for text in texts], np.int64)


def split_distinct(index: Index, draw: Callable[[Index], Index], folds: int = 0) -> Index:
    """Assign splits such that equal texts are in one split, unless they are given in several.

    A text without a given split joins its equals, or those of its group, that have one.

    Args:
        index: The texts.
        draw: Assigns a split to every sample of an index.
        folds: Number of cross-validation folds, which replace given train and val splits; 0 for none.
    """
    number = number_distinct(index.keys)
    unit = number if index.groups is None else np.unique(merge_groups(index.groups, number), return_inverse=True)[1]
    splits = index.splits.astype("<U5")
    if folds:
        splits[(splits == "train") | (splits == "val")] = ""
    given = np.full(unit.max(initial=0) + 1, "", splits.dtype)
    known = np.flatnonzero((splits != "") & (splits != "skip"))[::-1]
    given[unit[known]] = splits[known]
    splits = np.where(splits == "", given[unit], splits)
    names, code = np.unique(splits, return_inverse=True)
    _, first, pair = np.unique(number * len(names) + code, return_index=True, return_inverse=True)
    index = replace(index, splits=splits)
    if index.groups is not None:
        groups = merge_groups(index.groups, pair)
        before, after = (len(np.unique(names)) for names in (index.groups, groups))
        if after < before:
            rank_zero_warn(f"{index.root}: {before:,} groups share texts, and stay together as {after:,} groups")
        return draw(replace(index, groups=groups))
    # One row for each pair of text and split; the others follow it.
    rows = np.sort(first)
    return replace(index, splits=draw(take(index, rows)).splits[np.searchsorted(rows, first[pair])])


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
