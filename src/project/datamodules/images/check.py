"""Validation of image datasets: the command `check_data`."""

import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError

from project.datamodules.findings import Finding, pair_finding, report_findings, small_classes
from project.datamodules.images.index import index_image_table
from project.datamodules.images.notices import describe_crop
from project.datamodules.images.packed import sample_facts
from project.datamodules.index import Index, describe_absent
from project.datamodules.labels import LabelOptions, TargetOption
from project.datamodules.parallel import parallel_map
from project.datamodules.split import complete_splits
from project.datamodules.tree import index_tree
from project.errors import UserError
from project.images import Pixels, UnreadableImageError, decode, describe_skipped, read_bytes, to_dtype
from project.interface import SPLITS, ImageInput, to_size
from project.output import pluralize
from project.tables import DEFAULT_COLUMNS, PathColumns

NEAR_BITS = 6  # maximum Hamming distance between the 64-bit perceptual hashes of near duplicates
NEAR_LEVELS = 9.0  # maximum mean difference between the thumbnails of near duplicates, of 255 levels
THUMBNAIL = (16, 16)
SHEET = 40  # maximum number of findings in the contact sheet


class ImageInfo(NamedTuple):
    """Properties of an image, or the error if it is unreadable."""

    error: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    content: bytes = b""
    phash: int = 0
    thumbnail: NDArray[np.uint8] = np.zeros((*THUMBNAIL, 3), np.uint8)  # (H, W, C)
    note: str = ""


def check_data(
    root: Path,
    table: Path | None = None,
    columns: PathColumns = DEFAULT_COLUMNS,
    target: TargetOption = "auto",
    label_separator: str | None = None,
    out: Path = Path("logs/check_data"),
    min_images: int = 10,
    image_size: int | list[int] = 32,
    channels: int = 3,
) -> None:
    """Validate a dataset: print image counts and sizes, report errors and warnings, exit with 1 if there are errors.

    Errors are unreadable images, blank images, duplicates across splits (data leakage) or with conflicting labels, and
    classes with too few images. Warnings are other duplicates and uncommon file formats. Duplicates are exact or near.
    Writes findings.csv and, unless it would be empty, the contact sheet findings.png.

    Args:
        root: Dataset directory, in a form that `fit` accepts. Without splits, images are split as by `fit`.
        table: CSV, TSV or Parquet file of paths (relative to `root`) and labels, used instead of class folders.
        columns: Names of its columns.
        target: What is predicted, as `data.target` of `fit`.
        label_separator: Separator of several labels in a cell of the table.
        out: Output directory.
        min_images: Minimum number of readable training images per class.
        image_size: Size of the network input, to tell how much of the images a crop cuts off.
        channels: Number of channels of the images, e.g. 1 for grayscale.

    Raises:
        UserError: the dataset has no valid structure.
        SystemExit: code 1, there are errors.
    """
    options = LabelOptions(target, label_separator)
    index = index_image_table(table, root, columns, options, option="--columns") if table else index_tree(root)
    inputs = ImageInput(*to_size(image_size, "--image_size"), channels=channels)
    facts = sample_facts(index, inputs, 100)
    value_range = facts.value_range(np.arange(len(index.keys)), facts.dtype())
    inputs = replace(inputs, dtype=facts.dtype(), value_range=value_range)
    images = list(parallel_map(partial(_inspect, index, inputs), len(index.keys), "checking images"))
    readable = np.array([not image.error for image in images])
    index = replace(index, splits=np.where(readable, index.splits, "skip"))
    try:
        index = complete_splits(index, 0.15, 0.15, 0)
    except UserError:  # too few images to split, which is reported as a finding
        index = replace(index, splits=np.where(index.splits == "", "train", index.splits))
    unreadable = np.flatnonzero(~readable).tolist()
    findings = [Finding("unreadable", index.keys[row], "", images[row].error) for row in unreadable]
    findings += [*_duplicates(index, images, readable), *_outliers(index, images, readable)]
    findings += small_classes(index, min_images)
    _print_counts(index, images, readable)
    _print_conversions(index, images, inputs)
    out.mkdir(parents=True, exist_ok=True)
    _write_contact_sheet(index.root, inputs, findings, out / "findings.png")
    report_findings(findings, out)


def _read(file: Path, inputs: ImageInput) -> tuple[Pixels, Image.Image, str, bytes]:
    """Return the pixels of a file, uint8 (C, H, W), as an RGB image, the note of the decoder, and its content."""
    data = read_bytes(file)
    pixels, note = decode(data, inputs.channels)
    raw = to_dtype(pixels, inputs.dtype).transpose(2, 0, 1)
    bands = raw if inputs.is_8bit else (inputs.scale(raw.astype(np.float32)) * 255).round().astype(np.uint8)
    return bands, inputs.render(bands).convert("RGB"), note, data


def _inspect(index: Index, inputs: ImageInput, row: int) -> ImageInfo:
    import imagehash

    file = index.root / index.keys[row]
    try:
        bands, image, note, data = _read(file, inputs)
    except UnreadableImageError as error:
        return ImageInfo(str(error))
    try:
        with Image.open(io.BytesIO(data)) as opened:
            file_format = str(opened.format)
    except UnidentifiedImageError:  # read by another library
        file_format = file.suffix[1:].upper()
    phash = int(str(imagehash.phash(image)), 16)
    small = [np.asarray(Image.fromarray(band).resize(THUMBNAIL, Image.Resampling.BOX)) for band in bands]
    digest = blake2b(bands.tobytes(), digest_size=16).digest()  # of the pixels: the encoding may differ
    return ImageInfo("", file_format, image.width, image.height, digest, phash, np.stack(small, -1), note)


def _duplicates(index: Index, images: list[ImageInfo], readable: NDArray[np.bool_]) -> Iterator[Finding]:
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for row in np.flatnonzero(readable).tolist():
        by_content[images[row].content].append(row)
    for rows in by_content.values():
        for row in rows[1:]:
            yield pair_finding(index, "exact duplicate", rows[0], row)
    unique = [rows[0] for rows in by_content.values()]
    hashes = np.array([images[row].phash for row in unique], dtype=np.uint64)
    for first, second in near_pairs(hashes, NEAR_BITS):
        one, other = sorted((unique[first], unique[second]))
        difference = np.abs(images[one].thumbnail.astype(int) - images[other].thumbnail).mean()
        if difference <= NEAR_LEVELS:
            yield pair_finding(index, "near duplicate", one, other, f"mean difference {difference:.1f} of 255")


def near_pairs(hashes: NDArray[np.uint64], bits: int) -> set[tuple[int, int]]:
    """Return the positions (smaller, larger) of all pairs of 64-bit hashes within a Hamming distance of `bits`.

    When hashes are cut into bits + 1 bands, such a pair has at least one equal band, so only these pairs are compared.
    """
    pairs: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")  # positions in a group ascend
        for group in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            for following, one in enumerate(group.tolist(), start=1):
                others = group[following:]
                near = others[np.bitwise_count(hashes[one] ^ hashes[others]) <= bits]
                pairs |= {(one, other) for other in near.tolist()}
    return pairs


def _outliers(index: Index, images: list[ImageInfo], readable: NDArray[np.bool_]) -> Iterator[Finding]:
    formats = np.array([image.format for image in images])
    names, counts = np.unique(formats[readable], return_counts=True)
    for name, count in zip(names, counts, strict=True):
        if count <= max(1, 0.01 * counts.sum()) < counts.max():
            for row in np.flatnonzero(formats == name).tolist():
                yield Finding("uncommon format", index.keys[row], detail=f"{name}, mostly {names[counts.argmax()]}")
    for row in np.flatnonzero(readable).tolist():
        if (spread := images[row].thumbnail.std((0, 1)).max()) < 2:
            yield Finding("blank", index.keys[row], detail=f"standard deviation {spread:.1f} of 255 levels")


def _print_counts(index: Index, images: list[ImageInfo], readable: NDArray[np.bool_]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{index.root}: {len(images):,} images", title_justify="left")
    first = {"classes": "class", "multilabel": "label", "values": ""}[index.kind]
    for heading in (first, *SPLITS, "smallest", "largest"):
        table.add_column(heading, justify="left" if heading == first else "right")
    for name, labeled in [*index.class_rows, *([] if index.kind == "classes" else [("all", np.arange(len(images)))])]:
        rows = labeled[readable[labeled]]
        counts = [f"{np.count_nonzero(index.splits[rows] == split):,}" for split in SPLITS]
        sizes = sorted((images[row].width * images[row].height, images[row].width, images[row].height) for row in rows)
        table.add_row(name, *counts, *(f"{w}x{h}" for _, w, h in (sizes[:1] + sizes[-1:])))
    Console(soft_wrap=True, markup=False).print(table)


def _print_conversions(index: Index, images: list[ImageInfo], inputs: ImageInput) -> None:
    sizes = np.array([(image.height, image.width) for image in images if not image.error], np.int32)
    notes = Counter(image.note for image in images if image.note)
    lines = [f"{pluralize(count, 'image')}: {note}" for note, count in notes.most_common()]
    low, high = inputs.value_range
    depth = "" if inputs.is_8bit else f"the pixels are {inputs.dtype}, from {low:g} to {high:g} without outliers"
    lines += [describe_absent(index, split) for split in SPLITS[1:]]
    for line in (depth, describe_crop(sizes, inputs)[0], *lines, describe_skipped(index.skipped)):
        if line:
            print(line)


def _write_contact_sheet(root: Path, inputs: ImageInput, findings: list[Finding], file: Path) -> None:
    """Draw the images of the findings, errors first; without images, no file is written."""
    visible = [finding for finding in findings if finding.kind not in ("unreadable", "too few images")]
    shown = sorted(visible, key=lambda finding: finding.severity != "error")[:SHEET]
    file.unlink(missing_ok=True)
    if not shown:
        return
    side, columns = 128, 4
    cell = (2 * side + 16, side + 44)
    sheet = Image.new("RGB", (columns * cell[0], -(-len(shown) // columns) * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for number, finding in enumerate(shown):
        left, top = number % columns * cell[0], number // columns * cell[1]
        for column, path in enumerate(filter(None, (finding.path, finding.other))):
            image = _read(root / path, inputs)[1]
            image = image.resize((side, side), Image.Resampling.NEAREST if image.width < side else None)
            sheet.paste(image, (left + column * (side + 4), top))
        for line, text in enumerate((finding.kind, finding.path[-44:], finding.other[-44:])):
            draw.text((left, top + side + 2 + 13 * line), text.encode("ascii", "replace").decode(), fill="black")
    sheet.save(file)
    print(f"figure    {file}")
