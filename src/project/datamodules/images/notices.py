"""What a user is told about the files of a dataset before training: unreadable, cropped, converted and duplicated."""

import re
from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from project.datamodules.images.facts import Facts
from project.datamodules.index import Index
from project.errors import UserError
from project.images import visible_part
from project.interface import ImageInput, PixelType
from project.output import pluralize

LARGE_CROP = 0.25  # share of an image above which a crop is warned about


def skip_unreadable(
    index: Index, unreadable: dict[int, str], policy: Literal["error", "skip"], option: str = "--data.on_corrupt"
) -> Index:
    """Move unreadable images (errors by row) to the split "skip", or raise a UserError that lists them all."""
    if not unreadable:
        return index
    names = [f"{index.root / index.keys[row]}: {reason}" for row, reason in unreadable.items()]
    counts = Counter(unreadable.values())
    bands = [reason for reason, _ in counts.most_common() if re.match(r"\d+ channels?, and data\.channels is", reason)]
    hint = (
        f"; to read those with {bands[0].partition(',')[0]}, use --data.channels {bands[0].split()[0]}" if bands else ""
    )
    if policy == "error" and len(index.keys) == 1:
        raise UserError(f"cannot read {names[0]}{hint}")
    if policy == "error":
        share = f"{len(unreadable):,} of {len(index.keys):,} images in {index.root}"
        if len(counts) == 1 and bands:
            raise UserError(f"{share} have {bands[0]}, e.g. {index.keys[min(unreadable)]}{hint}")
        fix = f"fix or remove the files listed above, or skip them with {option} skip{hint}"
        raise UserError(f"{share} cannot be read ({names[0]}): {fix}", names)
    splits = index.splits.astype("<U5")
    splits[list(unreadable)] = "skip"
    for name, rows in index.class_rows:
        if len(rows) and (splits[rows] == "skip").all():
            raise UserError(f"class '{name}' in {index.root} has no readable image{hint}", names)
    rank_zero_warn(f"skipping {len(unreadable):,} unreadable images: {', '.join(names[:3])}")
    return replace(index, splits=splits)


def describe_crop(sizes: NDArray[np.int32], inputs: ImageInput, option: str = "--data.fit") -> tuple[str, bool]:
    """Return a sentence about what a crop cuts off, empty if nothing, and whether it is much of some images.

    Args:
        sizes: Height and width of readable images, int32 (N, 2).
        inputs: Size and fit of the input.
        option: The option that changes the fit.
    """
    losses = np.zeros(len(sizes))
    distinct, number = np.unique(sizes, axis=0, return_inverse=True)
    for position, (height, width) in enumerate(distinct.tolist()):
        part = visible_part(height, width, inputs.size, inputs.fit)
        losses[number.reshape(-1) == position] = 1 - part.height * part.width / (height * width)
    if not losses.any():
        return "", False
    share = f"{np.median(losses):.0%} of an image (median), at most {losses.max():.0%}"
    text = f"the crop to {inputs.height}x{inputs.width} cuts off {share}"
    if many := np.count_nonzero(losses > LARGE_CROP):
        text += f", more than a quarter of {many:,} of {pluralize(len(losses), 'image')}"
        text += f": to keep whole images, use {option} pad or {option} stretch"
    return text, bool(many)


def describe_conversions(facts: Facts, dtype: PixelType) -> list[str]:
    """Return sentences, with counts, about what was left out or changed when files were decoded to a dtype."""
    counts = Counter(facts.notes[facts.notes != ""].tolist())
    lines = [f"{pluralize(count, 'image')}: {note}" for note, count in counts.most_common()]
    for other, text in (("uint8", "converted from 8 to 16 bits"), ("uint16", "converted from 16 to 8 bits")):
        if (count := int(np.count_nonzero(facts.dtypes == other))) and dtype not in (other, "float32"):
            lines.append(f"{pluralize(count, 'image')}: {text} per channel")
    return lines


def warn_about_duplicates(index: Index, content: NDArray[np.uint64]) -> None:
    """Warn about identical files across splits (data leakage) or with conflicting labels."""
    order = np.argsort(content, kind="stable")
    order = order[index.splits[order] != "skip"]
    same = content[order][1:] == content[order][:-1]
    one, other = order[:-1][same], order[1:][same]
    across, conflicting = index.splits[one] != index.splits[other], index.differ(one, other)
    for problem, found in (("across splits", across), ("with conflicting labels", conflicting)):
        if len(pairs := np.flatnonzero(found)):
            example = f"{index.keys[one[pairs[0]]]} and {index.keys[other[pairs[0]]]}"
            fix = f"list them with `train.py check_data {index.root}`"
            rank_zero_warn(f"{pluralize(len(pairs), 'exact duplicate')} {problem}, e.g. {example}: {fix}")
