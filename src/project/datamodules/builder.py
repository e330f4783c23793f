"""Base class of built-in datasets."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from filelock import FileLock


class DatasetBuilder(ABC):
    """Base class of built-in datasets, which are written once as a folder; subclasses implement `write`.

    The folder is created atomically, by one process if several need it.

    Attributes:
        table: Name of a table in the folder that lists the samples and their labels, instead of class folders.
    """

    table: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """Name of the folder in the cache."""
        return type(self).__name__.lower()

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write ROOT/CLASS/IMAGE, ROOT/{train,val,test}/CLASS/IMAGE or files and the table into an empty folder."""

    def prepare(self, cache: Path) -> Path:
        """Return the dataset directory in the cache; write it first if it does not exist."""
        folder, partial = cache / self.name, cache / f".{self.name}.partial"
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f".{self.name}.lock"):
                if not folder.exists():
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir()
                    try:
                        self.write(partial)
                        partial.rename(folder)
                    finally:
                        shutil.rmtree(partial, ignore_errors=True)
        return folder
