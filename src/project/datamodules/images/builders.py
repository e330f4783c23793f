"""Built-in datasets, written as image folders."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

from project.datamodules.builder import DatasetBuilder
from project.errors import UserError
from project.files import write_table


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


class DigitPairs(DatasetBuilder):
    """6,000 images of 32x32 pixels that show two handwritten digits, for multi-label classification.

    The digits, from scikit-learn, are at random places side by side. Those of val and test are not in train.
    """

    table = "labels.csv"

    def write(self, folder: Path) -> None:
        """Write FOLDER/NNNN.png and FOLDER/labels.csv with columns path, label, split; labels are like `3|8`."""
        from sklearn.datasets import load_digits

        digits, draw = load_digits(), np.random.default_rng(0)
        order = draw.permutation(len(digits.target))
        shown = {"train": order[:1300], "val": order[1300:1500], "test": order[1500:]}
        rows = []
        for number, split in enumerate(np.repeat(list(shown), (4800, 600, 600)).tolist()):
            pair = draw.choice(shown[split], 2)
            canvas = Image.new("L", (32, 32))
            for left, digit in zip((0, 16), pair.tolist(), strict=True):
                pixels = Image.fromarray((digits.images[digit] * (255 / 16)).astype(np.uint8))
                side = int(draw.integers(13, 17))
                place = left + int(draw.integers(17 - side)), int(draw.integers(33 - side))
                canvas.paste(pixels.resize((side, side), Image.Resampling.BICUBIC), place)
            name = f"{number:04d}.png"
            canvas.convert("RGB").save(folder / name)
            labels = sorted({int(digits.target[digit]) for digit in pair})
            rows.append({"path": name, "label": "|".join(map(str, labels)), "split": split})
        write_table(folder / self.table, rows)


class Bars(DatasetBuilder):
    """3,000 images of 32x32 pixels that show a bar at an angle of 10 to 80 degrees, for regression."""

    table = "angles.csv"

    def write(self, folder: Path) -> None:
        """Write FOLDER/NNNN.png and FOLDER/angles.csv with columns path and angle, in degrees."""
        draw, rows = np.random.default_rng(0), []
        for number in range(3000):
            angle = float(draw.uniform(10, 80))
            canvas = Image.new("L", (128, 128), int(draw.integers(60)))
            x, y, half = *draw.uniform(48, 80, 2), draw.uniform(28, 44)
            across, up = half * np.cos(np.deg2rad(angle)), half * np.sin(np.deg2rad(angle))
            ends = (x - across, y + up, x + across, y - up)
            ImageDraw.Draw(canvas).line(ends, int(draw.integers(120, 256)), width=int(draw.integers(8, 20)))
            name = f"{number:04d}.png"
            canvas.resize((32, 32), Image.Resampling.BOX).convert("RGB").save(folder / name)
            rows.append({"path": name, "angle": f"{angle:.2f}"})
        write_table(folder / self.table, rows)


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
