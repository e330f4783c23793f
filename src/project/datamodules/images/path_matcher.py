"""Matching of paths in a table to files."""

import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from project.errors import UserError
from project.tables import clean


class PathMatcher:
    """Finds the file that a table names.

    Names may differ from the path in blanks, Unicode normalization or encoding, the case of the extension, and
    backslashes. A name without folders or without an extension stands for the only such file.

    Args:
        listing: Returns the relative POSIX paths of all files; called once, and only if a name is not a path.
        root: The folder that paths are relative to; None if there are no files but those listed.
        encoding: Encoding of the table, for file names that are not valid UTF-8.
    """

    def __init__(self, listing: Callable[[], Iterable[str]], root: Path | None = None, encoding: str = "utf-8") -> None:
        self.listing, self.root, self.encoding = listing, root, encoding
        self._names: dict[str, set[str]] = {}
        self._by_key: dict[str, list[str]] | None = None

    def match(self, name: str) -> str:
        """Return the relative path of a file, or an empty string if there is none.

        Raises:
            UserError: Several files match.
        """
        if self._exists(name):
            return name
        raw = os.fsdecode(name.encode(self.encoding, "surrogateescape")) if self.encoding == "cp1252" else name
        if self._exists(raw):
            return raw
        paths = self._paths()
        for candidate in dict.fromkeys((raw, name)):
            for prefix in ("", "id:", "name:"):
                found = paths.get(prefix + _key(candidate), [])
                if len(found) > 1:
                    raise UserError(f"{name!r} may be {found[0]} or {found[1]}: write the path of one of them")
                if found:
                    return found[0]
        return ""

    def _exists(self, path: str) -> bool:
        """Return True if a file exists; each folder is listed once."""
        if self.root is None:
            return False
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                with os.scandir(self.root / folder) as entries:
                    self._names[folder] = {entry.name for entry in entries if entry.is_file()}
            except (OSError, ValueError):
                self._names[folder] = set()
        return name in self._names[folder]

    def _paths(self) -> dict[str, list[str]]:
        """Return paths by their normalized path, by that without the extension (id:), and by their name (name:)."""
        if self._by_key is None:
            by_key: dict[str, set[str]] = defaultdict(set)
            for path in self.listing():
                spellings = {path}
                if not path.isascii() and any("\udc80" <= character <= "\udcff" for character in path):
                    spellings.add(os.fsencode(path).decode("cp1252", "replace"))
                for key in map(_key, spellings):
                    stem, name = _key(posixpath.splitext(key)[0]), posixpath.basename(key)
                    by_key[key].add(path)
                    by_key[f"id:{stem}"].add(path)
                    if name != key:
                        by_key[f"name:{name}"].add(path)
                        by_key[f"name:{posixpath.basename(stem)}"].add(path)
            self._by_key = {key: sorted(paths) for key, paths in by_key.items()}
        return self._by_key


def _key(path: str) -> str:
    """Return the key under which spellings of a path are the same."""
    stem, extension = posixpath.splitext(clean(path).replace("\\", "/"))
    return posixpath.normpath(stem + extension.lower())
