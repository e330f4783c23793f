"""CIFAR-10, through torchvision."""

from pathlib import Path
from tempfile import TemporaryDirectory

from project.datamodules.source import Source
from project.errors import UserError


class CIFAR10(Source):
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
