"""The data set that is always there."""

from pathlib import Path

import numpy as np
from PIL import Image

from project.datamodules.source import Source


class Digits(Source):
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
