"""Search for image files."""

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from project.errors import UserError
from project.files import find_files

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
    """Yield the relative POSIX paths of all image files below a folder, see `find_files`."""
    return find_files(folder, readable_extensions(), visited, skipped)


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
