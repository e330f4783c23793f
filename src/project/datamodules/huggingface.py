"""Datasets of Hugging Face as map-style datasets of images and targets."""

from typing import Any

from torch.utils.data import Dataset

from project.errors import UserError


class HuggingFace(Dataset[tuple[Any, Any]]):
    """A split of a dataset that `datasets.load_dataset` loads, from local files or, with a network, by name.

    Args:
        path: Name on the Hub, or of a loader of local files: imagefolder, parquet.
        split: The split, e.g. train, test or train[:1000].
        name: Configuration of the dataset, if it has several.
        data_dir: Folder of local files.
        data_files: Local files.
        image: Column of images.
        label: Column of targets; class names are those of its `ClassLabel`.

    Raises:
        UserError: There is no such column.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        name: str | None = None,
        data_dir: str | None = None,
        data_files: str | list[str] | None = None,
        image: str = "image",
        label: str = "label",
    ) -> None:
        from datasets import load_dataset

        self.rows = load_dataset(path, name, data_dir=data_dir, data_files=data_files, split=split)
        self.image, self.label = image, label
        columns = self.rows.column_names
        if missing := [column for column in (image, label) if column not in columns]:
            fix = f"name those of {', '.join(columns)} with the arguments image and label"
            raise UserError(f"{path} has no column {' or '.join(missing)}: {fix}")
        self.classes = getattr(self.rows.features[label], "names", None)
        self.targets = self.rows[label]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        sample = self.rows[row]
        return sample[self.image], sample[self.label]
