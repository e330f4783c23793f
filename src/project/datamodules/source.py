"""Data sets that come by name rather than as a folder of one's own."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path

from filelock import FileLock


class Source(ABC):
    """A data set that writes itself as an image folder, once; subclass it and implement `write`.

    The folder appears whole or not at all, and only once when several processes ask for it together.
    """

    @property
    def name(self) -> str:
        """Name of the folder in the cache."""
        return type(self).__name__.lower()

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write ROOT/CLASS/IMAGE or ROOT/{train,val,test}/CLASS/IMAGE into an empty folder."""

    def prepare(self, cache: Path) -> Path:
        """The data set's folder inside the cache, written if it is not there."""
        folder = cache / self.name
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f".{self.name}.lock"):
                if not folder.exists():
                    partial = cache / f".{self.name}.partial"
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir()
                    try:
                        self.write(partial)
                        partial.rename(folder)
                    finally:
                        shutil.rmtree(partial, ignore_errors=True)
        return folder
