"""Targets of a map-style dataset: classes, labels or values, from what its samples hold."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from project.datamodules.labels import Labels, TargetKind, TargetOption, class_labels, kind_of
from project.datamodules.parallel import CHUNK, parallel_map
from project.datamodules.samples import seeded, split_sample
from project.errors import UserError
from project.interface import Target

SERIAL = 10 * CHUNK  # samples that are read faster in this process than in new ones
CHECKED = 8  # samples whose targets are compared with the dataset's list of targets


class Part(NamedTuple):
    """A dataset of one split.

    Attributes:
        split: Name of the split.
        dataset: The samples.
    """

    split: str
    dataset: Any

    def name(self, row: int) -> str:
        """Return the name of a sample."""
        return f"{self.split}/{row:05d}"

    def read(self, row: int, seed: int = 0) -> tuple[Any, Any]:
        """Return the image and the target of a sample, as drawn for evaluation."""
        with seeded(seed, 0, row):
            return split_sample(self.dataset[row], self.name(row))


def read_targets(part: Part) -> list[Any]:
    """Return the target of every sample as plain types.

    A list `targets` or `labels` of the dataset is used if it agrees with some samples; else all samples are read once.

    Raises:
        UserError: A target is neither a number, text, nor a vector of numbers.
    """
    count = len(part.dataset)
    for name in ("targets", "labels"):
        listed = getattr(part.dataset, name, None)
        if listed is None or not hasattr(listed, "__len__") or len(listed) != count:
            continue
        rows = {*np.linspace(0, count - 1, min(CHECKED, count)).astype(int).tolist()}
        plain = [_plain(target, part.name(row)) for row, target in enumerate(listed)]
        if all(plain[row] == _read_target(part, row) for row in rows):
            return plain
    read = partial(_read_target, part)
    return [*(map(read, range(count)) if count < SERIAL else parallel_map(read, count, f"reading {part.split}"))]


def _read_target(part: Part, row: int) -> Any:
    return _plain(part.read(row)[1], part.name(row))


def _plain(target: Any, name: str) -> Any:
    """Return a target as int, float, str or a list of numbers."""
    value = target.tolist() if hasattr(target, "tolist") else target
    if isinstance(value, tuple | list):
        value = [np.nan if each is None else getattr(each, "item", lambda each=each: each)() for each in value]
        if len(value) == 1:
            value = value[0]
    numbers = value if isinstance(value, list) else [value]
    if isinstance(value, str) or (numbers and all(isinstance(each, int | float) for each in numbers)):
        return value
    what = "has no target" if target is None else f"has a target of type {type(target).__name__}"
    raise UserError(f"sample {name} {what}: return (image, target), with an int, a float, text, or a vector of numbers")


def to_labels(parts: Sequence[Part], option: TargetOption, trained: Target | None) -> tuple[Labels, list[str]]:
    """Return the targets of all samples of some parts, in their order, and notices about them.

    Args:
        parts: The datasets. The first names classes or labels by its `classes`, if it has them.
        option: What the targets are; `auto`: vectors of 0 and 1 are labels, other floats values, the rest classes.
        trained: Target of a trained model, whose names are kept in order.

    Raises:
        UserError: The targets differ in type or length, or do not fit the option or the trained model.
    """
    targets = [read_targets(part) for part in parts]
    every = [target for each in targets for target in each]
    if not every:
        raise UserError(f"{parts[0].split}: the dataset is empty")
    kind = kind_of(trained) if trained else option
    kind = _guess(every) if kind == "auto" else kind
    expected = list(trained.names) if trained else None
    if kind == "classes":
        return _classes(parts, targets, expected)
    return _vectors(parts, every, kind, expected)


def _guess(targets: list[Any]) -> TargetKind:
    if isinstance(targets[0], list):
        return "multilabel" if all(_is_flags(target) for target in targets) else "values"
    return "values" if isinstance(targets[0], float) else "classes"


def _is_flags(target: Any) -> bool:
    return isinstance(target, list) and all(value in (0, 1, -1) or value != value for value in target)


def class_list(dataset: Any) -> list[str] | None:
    """Return the names in the attribute `classes` of a dataset, if it has any."""
    names = getattr(dataset, "classes", None)
    return None if names is None or isinstance(names, str) else [str(name) for name in names]


def _classes(parts: Sequence[Part], targets: list[list[Any]], expected: list[str] | None) -> tuple[Labels, list[str]]:
    cells: list[str] = []
    for part, each in zip(parts, targets, strict=True):
        names = class_list(part.dataset)
        for row, target in enumerate(each):
            if isinstance(target, str | bool) or (isinstance(target, int) and names is None):
                cells.append(str(int(target) if isinstance(target, bool) else target))
            elif isinstance(target, int) and names is not None and 0 <= target < len(names):
                cells.append(names[target])
            else:
                among = "text or an int" if names is None else f"a number below {len(names)}, of its `classes`"
                raise UserError(f"sample {part.name(row)} has the target {target}: for classes, return {among}")
    listed, notices = class_list(parts[0].dataset), []
    used = {*cells}
    if listed and expected is None and (absent := [name for name in listed if name not in used]):
        notices.append(f"{len(absent)} of {len(listed)} classes have no sample and are left out, e.g. {absent[0]!r}")
    order = expected or (listed and [name for name in listed if name in used] + sorted(used.difference(listed)))
    return class_labels(Path(type(parts[0].dataset).__name__), cells, order or None), notices


def _vectors(
    parts: Sequence[Part], targets: list[Any], kind: TargetKind, expected: list[str] | None
) -> tuple[Labels, list[str]]:
    rows = [target if isinstance(target, list) else [target] for target in targets]
    lengths = {len(row) for row in rows}
    texts = any(isinstance(value, str) for row in rows for value in row)
    if texts or len(lengths) > 1 or (kind == "multilabel" and not all(map(_is_flags, rows))):
        wanted = "0 or 1 (-1 or NaN if unknown) for each label" if kind == "multilabel" else "one float or a vector"
        raise UserError(f"data.target is {kind}: return {wanted}, of the same length for all samples")
    (width,) = lengths
    names = expected or class_list(parts[0].dataset) or (["value"] if width == 1 else [*map(str, range(width))])
    if len(names) != width:
        source = "the trained model" if expected else "its `classes`"
        raise UserError(f"the targets have {width} numbers, but {source} names {len(names)}")
    values = np.array(rows, np.float32)
    notices = []
    if kind == "multilabel":
        values[values == -1] = np.nan
        if (values == 1).sum(1).max() == 1 == (values == 1).sum(1).min():
            notices.append("each sample has exactly one label: to predict classes, return its number")
    if unknown := int(np.isnan(values).sum()):
        notices.append(f"{unknown:,} of {values.size:,} targets are unknown: they count in neither loss nor metrics")
    return Labels(kind, names, values), notices
