"""Search for image files."""

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from project.errors import UserError

EXTENSIONS = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".npy"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Extensions of image files, in lower case."""
OPTIONAL = {".dcm": ("pydicom", "dicom"), ".heic": ("pillow_heif", "heic"), ".heif": ("pillow_heif", "heic")}
"""Extensions that need another package: its name, and the extra that installs it."""


@cache
def readable_extensions() -> tuple[str, ...]:
    """Return the extensions of the files that can be read with the installed packages."""
    return EXTENSIONS + tuple(extension for extension, (package, _) in OPTIONAL.items() if is_installed(package))


def is_installed(package: str) -> bool:
    """Return True if a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked in sys.modules
        return False


def find_images(folder: Path, visited: list[str] | None = None, skipped: "Counter[str] | None" = None) -> Iterator[str]:
    """Yield the relative POSIX paths of all image files below a folder, skipping hidden files and symlink loops.

    Args:
        folder: The folder to search, following symbolic links.
        visited: List to which every searched folder is appended.
        skipped: Counts the files that are not images, by extension.

    Raises:
        UserError: A folder cannot be read.
    """

    def raise_user_error(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error

    extensions = readable_extensions()
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, onerror=raise_user_error, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if visited is not None:
            visited.append(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = Path(here).relative_to(folder)
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(extensions):
                yield (prefix / name).as_posix()
            elif skipped is not None:
                skipped[Path(name).suffix.lower()] += 1


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Return the number of files that are not read by extension, most frequent first; empty if there are none."""
    parts = []
    for extension, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0])):
        remedy = f" (pip install -e '.[{OPTIONAL[extension][1]}]')" if extension in OPTIONAL else ""
        parts.append(f"{count:,} {extension or 'without an extension'}{remedy}")
    return f"skipped: {', '.join(parts)}" if parts else ""


def no_images(folder: Path, skipped: Mapping[str, int]) -> UserError:
    """Return the error for a folder without images, which names the files that are there."""
    others = describe_skipped(skipped).replace("skipped:", "but") or f"({', '.join(readable_extensions())})"
    return UserError(f"no images in {folder} {others}")
