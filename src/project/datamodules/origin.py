"""Where images come from: a folder, a table, shards, or a data set by name."""

from dataclasses import dataclass
from pathlib import Path

from project.datamodules.index import ImageIndex
from project.datamodules.index_cache import cached_index_tree
from project.datamodules.labels import index_table
from project.datamodules.shards import ShardReader, is_sharded, read_shard_index
from project.datamodules.source import Source
from project.errors import UserError
from project.redact import without_secrets


@dataclass(frozen=True)
class Origin:
    """The images that the datamodule's arguments of the same names mean.

    Raises:
        UserError: a column without a table.
    """

    root: str | None
    labels: str | None
    group_column: str | None
    source: Source | None
    cache_dir: Path
    balance_column: str | None = None

    def __post_init__(self) -> None:
        if self.root and without_secrets(self.root) != self.root:
            raise UserError(
                "data.root holds a password or key, which every run would write down: keep it in a file of the"
                " user's or in the environment, where fsspec looks"
            )
        for name in ("group_column", "balance_column"):
            if getattr(self, name) and not self.labels:
                raise UserError(f"data.{name} names a column of a CSV: give it by data.labels")

    @property
    def is_sharded(self) -> bool:
        """Whether the images lie in shards, which were checked and split when they were written."""
        return self.root is not None and is_sharded(self.root)

    def prepare(self) -> Path:
        """The folder that paths are relative to; a data set by name is written if it is not there.

        Raises:
            UserError: no images are given, or a data set cannot be had.
        """
        if self.root is not None:
            return Path(self.root)
        if self.labels is not None:
            return Path(self.labels).parent
        if self.source is None:
            raise UserError("no images: give --data.root DIR, or a data set by name with --data.source Digits")
        return self.source.prepare(self.cache_dir)

    def index(self, class_names: list[str] | None) -> ImageIndex:
        """Every labelled image.

        Args:
            class_names: The classes that a trained model knows; None to take those found.

        Raises:
            UserError: see `index_tree`, `index_table` and `read_shard_index`.
        """
        folder = self.prepare()
        if self.is_sharded:
            return read_shard_index(str(self.root), class_names)
        if self.labels is not None:
            return index_table(Path(self.labels), folder, self.group_column, class_names, self.balance_column)
        return cached_index_tree(folder, class_names, self.cache_dir / "index")

    def reader(self) -> ShardReader | None:
        """What gives the encoded image at a row of the index, where that is not its file."""
        return ShardReader(str(self.root)) if self.is_sharded else None
