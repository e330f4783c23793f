"""A few pictures to try the page with."""

from dataclasses import dataclass
from pathlib import Path

from project.errors import UserError
from project.images import find_images

SAMPLES = 6
MEDIA_TYPES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""What browsers show."""


@dataclass(frozen=True)
class Sample:
    """A picture as it lies on the disk; its name is that of its file."""

    name: str
    media_type: str
    data: bytes


def read_samples(folder: Path) -> list[Sample]:
    """Up to six pictures, evenly spaced over the folder with all below it.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: --samples {folder}")
    paths = [path for path in sorted(find_images(folder)) if Path(path).suffix.lower() in MEDIA_TYPES]
    if not paths:
        raise UserError(f"--samples {folder} has no pictures that browsers show ({', '.join(MEDIA_TYPES)})")
    count = min(SAMPLES, len(paths))
    chosen = [folder / paths[(2 * number + 1) * len(paths) // (2 * count)] for number in range(count)]
    try:
        return [Sample(file.stem, MEDIA_TYPES[file.suffix.lower()], file.read_bytes()) for file in chosen]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
