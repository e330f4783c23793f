"""`python -m project check_data ROOT`: what would spoil a result, found before training."""

import io
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from project.datamodules.index import ImageIndex, index_table, index_tree
from project.datamodules.parallel import each
from project.datamodules.split import complete_splits
from project.errors import UserError
from project.files import write_table
from project.images import UnreadableImageError, decode_pixels, read_bytes
from project.interface import SPLITS
from project.output import pluralize

NEAR_BITS = 6  # perceptual hashes (64 bits) that differ in at most so many may be the same picture
NEAR_LEVELS = 9.0  # thumbnails of the same picture differ by at most so many of 255 levels on average
SPOILING = ("unreadable", "in two splits", "under two labels", "too few images")
THUMBNAIL = (16, 16)
SHEET = 40  # findings shown in the contact sheet


class Look(NamedTuple):
    """What one image is like, or the problem with reading it."""

    problem: str = ""
    form: str = ""
    width: int = 0
    height: int = 0
    content: bytes = b""
    phash: int = 0
    thumbnail: NDArray[np.uint8] = np.zeros((*THUMBNAIL, 3), np.uint8)


class Finding(NamedTuple):
    """Something that a person should look at: what, in which file, beside which other, and why."""

    kind: str
    path: str
    other: str = ""
    detail: str = ""

    @property
    def spoils(self) -> bool:
        """Whether it would spoil a result."""
        return self.kind.endswith(SPOILING)


def check_data(
    root: Path, labels: Path | None = None, out: Path = Path("logs/check_data"), min_images: int = 10
) -> None:
    """Look at every image once; print what is there and what is wrong with it; exit with 1 if it would spoil a result.

    Writes findings.csv and, if there is anything to see, findings.png, a contact sheet.

    Args:
        root: ROOT/CLASS/IMAGE or ROOT/{train,val,test}/CLASS/IMAGE. A flat tree is split as `fit` would by default.
        labels: A CSV of path and label in place of class folders, with paths relative to `root`.
        out: Folder for what is written.
        min_images: A class with fewer readable images in train is reported.

    Raises:
        UserError: the tree is not one that can be trained on.
        SystemExit: code 1, something would spoil a result.
    """
    index = index_table(labels, root, None) if labels else index_tree(root)
    looks = list(each(partial(_look, index), len(index.paths), "looking at images"))
    readable = np.array([not look.problem for look in looks])
    index = replace(index, splits=np.where(readable, index.splits, "skip"))
    try:
        index = complete_splits(index, 0.15, 0.15, 0)
    except UserError:  # too few to share out: reported with the rest
        index = replace(index, splits=np.where(index.splits == "", "train", index.splits))
    unreadable = np.flatnonzero(~readable).tolist()
    findings = [Finding("unreadable", index.paths[row], "", looks[row].problem) for row in unreadable]
    findings += [*_copies(index, looks, readable), *_odd(index, looks, readable)]
    for label, name in enumerate(index.class_names):
        count = np.count_nonzero(readable & (index.labels == label) & (index.splits == "train"))
        if count < min_images:
            findings.append(Finding("too few images", name, "", f"{count} in train, fewer than {min_images}"))
    _print_counts(index, looks, readable)
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "findings.csv", [finding._asdict() for finding in findings], Finding._fields)
    _draw(index.root, findings, out / "findings.png")
    for kind in dict.fromkeys(finding.kind for finding in findings):
        found = [finding for finding in findings if finding.kind == kind]
        print(f"{len(found):,} x {kind}{', which would spoil a result' if found[0].spoils else ''}")
        for finding in found[:5]:
            print(f"    {' = '.join(filter(None, (finding.path, finding.other)))}  {finding.detail}".rstrip())
        if len(found) > 5:
            print(f"    ... and {len(found) - 5:,} more")
    print(f"list      {out / 'findings.csv'}")
    spoiling = sum(finding.spoils for finding in findings)
    print(f"{pluralize(spoiling, 'finding') if spoiling else 'nothing found that'} would spoil a result")
    if spoiling:
        raise SystemExit(1)


def _look(index: ImageIndex, row: int) -> Look:
    import imagehash

    try:
        data = read_bytes(index.root / index.paths[row])
        pixels = decode_pixels(data)
    except UnreadableImageError as error:
        return Look(str(error))
    image = Image.fromarray(pixels)
    with Image.open(io.BytesIO(data)) as file:
        form = str(file.format)
    phash = int(str(imagehash.phash(image)), 16)
    thumbnail = np.asarray(image.resize(THUMBNAIL, Image.Resampling.BOX))
    digest = blake2b(pixels.tobytes(), digest_size=16).digest()  # of the pixels: another name or EXIF is a copy too
    return Look("", form, image.width, image.height, digest, phash, thumbnail)


def _copies(index: ImageIndex, looks: list[Look], readable: NDArray[np.bool_]) -> Iterator[Finding]:
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for row in np.flatnonzero(readable).tolist():
        by_content[looks[row].content].append(row)
    for rows in by_content.values():
        for row in rows[1:]:
            yield _pair(index, "exact copy", rows[0], row, "")
    singles = [rows[0] for rows in by_content.values()]
    hashes = np.array([looks[row].phash for row in singles], dtype=np.uint64)
    for first, second in near_pairs(hashes, NEAR_BITS):
        one, other = sorted((singles[first], singles[second]))
        apart = np.abs(looks[one].thumbnail.astype(int) - looks[other].thumbnail).mean()
        if apart <= NEAR_LEVELS:
            yield _pair(index, "near copy", one, other, f"{apart:.1f} of 255 levels apart")


def _pair(index: ImageIndex, kind: str, one: int, other: int, detail: str) -> Finding:
    if index.labels[one] != index.labels[other]:
        names = " and ".join(index.class_names[index.labels[row]] for row in (one, other))
        kind, detail = f"{kind} under two labels", f"{names} {detail}".strip()
    elif index.splits[one] != index.splits[other]:
        kind, detail = f"{kind} in two splits", f"{index.splits[one]} and {index.splits[other]} {detail}".strip()
    return Finding(kind, index.paths[one], index.paths[other], detail)


def near_pairs(hashes: NDArray[np.uint64], bits: int) -> set[tuple[int, int]]:
    """Return all pairs of 64-bit hashes that differ in at most `bits` places, as positions (smaller, larger).

    Cut into bits + 1 bands, two such hashes agree in one band at least, so only those that do are compared.
    """
    pairs: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")  # a group's positions then ascend
        for group in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            for place, one in enumerate(group.tolist(), start=1):
                others = group[place:]
                near = others[np.bitwise_count(hashes[one] ^ hashes[others]) <= bits]
                pairs |= {(one, other) for other in near.tolist()}
    return pairs


def _odd(index: ImageIndex, looks: list[Look], readable: NDArray[np.bool_]) -> Iterator[Finding]:
    forms = np.array([look.form for look in looks])
    names, counts = np.unique(forms[readable], return_counts=True)
    for name, count in zip(names, counts, strict=True):
        if count <= max(1, 0.01 * counts.sum()) < counts.max():
            for row in np.flatnonzero(forms == name).tolist():
                yield Finding("odd format", index.paths[row], detail=f"{name} among {names[counts.argmax()]}")
    for row in np.flatnonzero(readable).tolist():
        if looks[row].thumbnail.std((0, 1)).max() < 2:
            yield Finding("blank", index.paths[row], detail="one color all over")


def _print_counts(index: ImageIndex, looks: list[Look], readable: NDArray[np.bool_]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{index.root}: {len(looks):,} images", title_justify="left")
    for heading in ("class", *SPLITS, "smallest", "largest"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for label, name in enumerate(index.class_names):
        rows = np.flatnonzero(readable & (index.labels == label))
        counts = [f"{np.count_nonzero(index.splits[rows] == split):,}" for split in SPLITS]
        sizes = sorted((looks[row].width * looks[row].height, looks[row].width, looks[row].height) for row in rows)
        table.add_row(name, *counts, *(f"{w}x{h}" for _, w, h in (sizes[:1] + sizes[-1:])))
    Console(soft_wrap=True, markup=False).print(table)


def _draw(root: Path, findings: list[Finding], file: Path) -> None:
    """Draw the findings that can be seen, those that spoil a result first; no file where there is none."""
    seen = [finding for finding in findings if finding.kind not in ("unreadable", "too few images")]
    shown = sorted(seen, key=lambda finding: not finding.spoils)[:SHEET]
    file.unlink(missing_ok=True)
    if not shown:
        return
    side, columns = 128, 4
    cell = (2 * side + 16, side + 44)
    sheet = Image.new("RGB", (columns * cell[0], -(-len(shown) // columns) * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for number, finding in enumerate(shown):
        left, top = number % columns * cell[0], number // columns * cell[1]
        for place, path in enumerate(filter(None, (finding.path, finding.other))):
            picture = Image.fromarray(decode_pixels(read_bytes(root / path)))
            picture = picture.resize((side, side), Image.Resampling.NEAREST if picture.width < side else None)
            sheet.paste(picture, (left + place * (side + 4), top))
        for line, text in enumerate((finding.kind, finding.path[-44:], finding.other[-44:])):
            draw.text((left, top + side + 2 + 13 * line), text.encode("ascii", "replace").decode(), fill="black")
    sheet.save(file)
    print(f"pictures  {file}")
