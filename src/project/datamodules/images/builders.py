"""Built-in datasets, written as image folders."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock
from PIL import Image

from project.errors import UserError


class DatasetBuilder(ABC):
    """Base class of built-in datasets, which are written once as an image folder; subclasses implement `write`.

    The folder is created atomically, by one process if several need it.
    """

    @property
    def name(self) -> str:
        """Name of the folder in the cache."""
        return type(self).__name__.lower()

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write ROOT/CLASS/IMAGE or ROOT/{train,val,test}/CLASS/IMAGE into an empty folder."""

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


class Digits(DatasetBuilder):
    """1,797 handwritten digits from scikit-learn, as 32x32 RGB images in ten classes.

    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    def write(self, folder: Path) -> None:
        """Write FOLDER/CLASS/NNNN.png, without network access."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            class_folder = folder / str(label)
            class_folder.mkdir(exist_ok=True)
            image = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))  # 8x8, values 0 to 16
            image.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB").save(class_folder / f"{number:04d}.png")


class CIFAR10(DatasetBuilder):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels in ten classes.

    A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    def write(self, folder: Path) -> None:
        """Download the archive (170 MB) and write FOLDER/{train,test}/CLASS/NNNNN.png.

        Raises:
            UserError: the download fails.
        """
        from torchvision import datasets

        with TemporaryDirectory(dir=folder.parent) as download:
            for split in ("train", "test"):
                try:
                    images = datasets.CIFAR10(download, train=split == "train", download=True)
                except (OSError, RuntimeError) as error:
                    raise UserError(
                        f"cannot download CIFAR-10 ({error}): connect to the network, or set --data.root to a folder"
                        " of the form DIR/{train,test}/CLASS/IMAGE"
                    ) from error
                for number, (image, label) in enumerate(images):
                    class_folder = folder / split / images.classes[label]
                    class_folder.mkdir(parents=True, exist_ok=True)
                    image.save(class_folder / f"{number:05d}.png")
