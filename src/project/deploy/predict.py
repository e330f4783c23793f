"""The tool `predict_exported`: an exported file's answers on a folder; with one in ONNX, without torch."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from project.deploy.load import load_exported
from project.errors import UserError
from project.files import atomic_write
from project.images import EXTENSIONS, Pixels, UnreadableImageError, decode_pixels, find_images, read_bytes
from project.output import pluralize

BATCH, PIXELS = 64, 2**24  # images, and their pixels, at most, that are held and asked about together


def predict_exported(
    model: Path, images: Path, output: Path = Path("predictions.csv"), require_signature: Path | None = None
) -> None:
    """Classify the images of a folder by an exported model; the table is that of `train.py predict`.

    Args:
        model: What `train.py export` wrote. One in ONNX needs no torch.
        images: A folder, with all below it, or one image.
        output: The table to write: path, class, and the probability of each class; between them `sure`, yes or no, of
            a model that was told how sure to be.
        require_signature: Load the model only if this public key signed it.

    Raises:
        UserError: the model or an image cannot be read, the model is not signed so, there are no images, or the table
            cannot be written.
    """
    exported = load_exported(model, require_signature=require_signature)
    if not images.exists():
        raise UserError(f"no such folder or image: {images}")
    root, paths = (images.parent, [images.name]) if images.is_file() else (images, sorted(find_images(images)))
    if not paths:
        raise UserError(f"{images} has no images ({', '.join(EXTENSIONS)})")
    target, least = exported.description.target, exported.metadata.get("confidence_threshold")
    with (
        atomic_write(output) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["path", *target.columns(least)])
        for some, pixels in _batches(root, paths):
            for path, row in zip(some, exported.probabilities(pixels), strict=True):
                writer.writerow([path, *target.row(row, least)])
    if len(paths) == 1:
        print(f"{paths[0]}: {target.describe(row)}")
    print(f"predictions of {pluralize(len(paths), 'image')}: {output}")


def _batches(root: Path, paths: Sequence[str]) -> Iterator[tuple[list[str], Pixels]]:
    """Neighbors of one size together: their paths, and uint8 (N, 3, H, W)."""
    some: list[str] = []
    held: list[Pixels] = []
    for path in paths:
        try:
            pixels = decode_pixels(read_bytes(root / path)).transpose(2, 0, 1)
        except UnreadableImageError as error:
            raise UserError(f"cannot read image {root / path}: {error}; remove or mend it") from error
        full = len(held) == BATCH or (len(held) + 1) * pixels[0].size > PIXELS
        if held and (full or pixels.shape != held[0].shape):
            yield some, np.stack(held)
            some, held = [], []
        some, held = [*some, path], [*held, pixels]
    yield some, np.stack(held)
