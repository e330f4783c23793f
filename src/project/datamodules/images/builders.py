"""Data sets that come by name rather than as a folder of one's own."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from filelock import FileLock
from PIL import Image

from project.errors import UserError


class DatasetBuilder(ABC):
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
        """Return the data set's folder inside the cache, written if it is not there."""
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
    """1,797 real handwritten digits that scikit-learn ships, as 32x32 RGB images in ten classes.

    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    def write(self, folder: Path) -> None:
        """Write FOLDER/CLASS/NNNN.png, without a network."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            place = folder / str(label)
            place.mkdir(exist_ok=True)
            image = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))  # 8x8, values 0 to 16
            image.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB").save(place / f"{number:04d}.png")


class CIFAR10(DatasetBuilder):
    """60,000 images of 32x32 pixels in ten classes, 50,000 to train on and 10,000 to test on.

    A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    def write(self, folder: Path) -> None:
        """Download the archive (170 MB) and write FOLDER/{train,test}/CLASS/NNNNN.png.

        Raises:
            UserError: no network.
        """
        from torchvision import datasets

        with TemporaryDirectory(dir=folder.parent) as download:
            for split in ("train", "test"):
                try:
                    images = datasets.CIFAR10(download, train=split == "train", download=True)
                except (OSError, RuntimeError) as error:
                    raise UserError(
                        f"cannot download CIFAR-10 ({error}): connect to the network, or give --data.root a folder"
                        " of the form DIR/{train,test}/CLASS/IMAGE"
                    ) from error
                for number, (image, label) in enumerate(images):
                    place = folder / split / images.classes[label]
                    place.mkdir(parents=True, exist_ok=True)
                    image.save(place / f"{number:05d}.png")
