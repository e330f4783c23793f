"""What many classes cost: predict of one image and reading a checkpoint, at 3 and at 4,500 classes.

    python benchmarks/classes.py [--classes 3 4500] [--repeats 5]

Each model learns for one epoch from four images of random pixels a class, made here; then, in turn, processor seconds
(user and system) of whole processes. The size of the checkpoint stands beside, in MB.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from startup import CONFIG, TRAIN, seconds

READ = "import sys; from project.modules import Classifier; Classifier.load_from_checkpoint(sys.argv[1])"


def make_images(root: Path, classes: int) -> None:
    """Write four images a class of 32x32 random pixels, as ROOT/CLASS/IMAGE."""
    random = np.random.default_rng(0)
    for number in range(classes):
        folder = root / f"class_{number:05}"
        folder.mkdir(parents=True)
        for image in range(4):
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{image}.png")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 4500])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        commands: dict[tuple[str, int], list[str]] = {}
        best: dict[int, Path] = {}
        for classes in options.classes:
            work = Path(scratch) / str(classes)
            root = work / "images"
            make_images(root, classes)
            fit = [str(TRAIN), "fit", "--config", str(CONFIG), "--data.root", str(root), "--trainer.max_epochs", "1"]
            seconds([*fit, "--test_after_fit", "false"], work)
            (best[classes],) = work.glob("logs/**/best.ckpt")
            image, checkpoint = str(root / "class_00000" / "0.png"), str(best[classes])
            predict = [str(TRAIN), "predict", "--ckpt_path", checkpoint, "--data.root", image]
            commands["predict one image", classes] = predict
            commands["load_from_checkpoint", classes] = ["-c", READ, checkpoint]
        found: dict[tuple[str, int], list[float]] = {key: [] for key in sorted(commands)}
        for _ in range(options.repeats):
            for key in found:
                found[key].append(seconds(commands[key], Path(scratch)))
        print(f"{'processor seconds':<24}{'classes':>8}{'median':>8}{'range':>14}{'best.ckpt':>10}")
        for (name, classes), values in found.items():
            spread, size = f"{min(values):.2f}-{max(values):.2f}", best[classes].stat().st_size / 1e6
            print(f"{name:<24}{classes:>8,}{statistics.median(values):>8.2f}{spread:>14}{size:>10.1f}")


if __name__ == "__main__":
    main()
