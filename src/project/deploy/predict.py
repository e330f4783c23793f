"""The command `predict_exported`: predict the images of a folder with an exported model; ONNX needs no torch."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from project.deploy.load import load_exported
from project.errors import UserError
from project.files import atomic_write
from project.images import (
    Pixels,
    UnreadableImageError,
    decode,
    describe_skipped,
    find_images,
    no_images,
    read_bytes,
    to_dtype,
)
from project.interface import ImageInput
from project.output import pluralize

BATCH_SIZE, BATCH_PIXELS = 64, 2**24  # limits of a batch: images, and pixels of all images together


def predict_exported(
    model: Path, images: Path, output: Path = Path("predictions.csv"), require_signature: Path | None = None
) -> None:
    """Predict the images of a folder with an exported model; writes the same table as `train.py predict`.

    Args:
        model: A model exported by `train.py export`. ONNX models need no torch.
        images: A folder, searched recursively, or a single image.
        output: The CSV file to write: the path and the predicted class, labels or values, with the probability of each
            class or label; also `confident`, yes or no, and `set` if the model has these thresholds.
        require_signature: Load the model only if this public key signed it.

    Raises:
        UserError: If the model or an image cannot be read, the model is not signed by the key, there are no images, or
            the table cannot be written.
    """
    exported = load_exported(model, require_signature=require_signature)
    if not images.exists():
        raise UserError(f"no such folder or image: {images}")
    skipped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    is_file = images.is_file()
    root, paths = (images.parent, [images.name]) if is_file else (images, sorted(find_images(images, skipped=skipped)))
    if not paths:
        raise no_images(images, skipped)
    if skipped:
        print(describe_skipped(skipped))
    target = exported.description.target
    with (
        atomic_write(output) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["path", *target.columns])
        for batch_paths, pixels in _batches(root, paths, exported.description.image, notes):
            for path, scores in zip(batch_paths, exported.scores(pixels), strict=True):
                writer.writerow([path, *target.row(scores)])
    if len(paths) == 1:
        print(f"{paths[0]}: {target.describe(scores)}")
    for note, count in notes.most_common():
        print(f"{pluralize(count, 'image')}: {note}")
    print(f"predictions of {pluralize(len(paths), 'image')}: {output}")


def _batches(
    root: Path, paths: Sequence[str], inputs: ImageInput, notes: Counter[str]
) -> Iterator[tuple[list[str], Pixels]]:
    """Yield batches of consecutive images of the same size: paths, and pixels (N, C, H, W); count the notes."""
    batch_paths: list[str] = []
    batch: list[Pixels] = []
    for path in paths:
        try:
            decoded = decode(read_bytes(root / path), inputs.channels)
            pixels = to_dtype(decoded.pixels, inputs.dtype).transpose(2, 0, 1)
        except UnreadableImageError as error:
            raise UserError(f"cannot read image {root / path}: {error}; remove or repair it") from error
        if decoded.note:
            notes[decoded.note] += 1
        full = len(batch) == BATCH_SIZE or (len(batch) + 1) * pixels[0].size > BATCH_PIXELS
        if batch and (full or pixels.shape != batch[0].shape):
            yield batch_paths, np.stack(batch)
            batch_paths, batch = [], []
        batch_paths, batch = [*batch_paths, path], [*batch, pixels]
    yield batch_paths, np.stack(batch)
