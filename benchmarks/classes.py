"""Cost of many classes: prediction for one image and loading of a checkpoint, with 3 and with 4,500 classes.

    python benchmarks/classes.py [--classes 3 4500] [--repeats 5]

Each model is trained for one epoch on four images of random pixels per class. Then CPU seconds (user and system) of
whole processes are measured in turn. The table also has the size of the checkpoint in MB.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from startup import CONFIG, TRAIN, seconds

LOAD = "import sys; from project.modules import Classifier; Classifier.load_from_checkpoint(sys.argv[1])"


def make_images(root: Path, classes: int) -> None:
    """Write four images of 32x32 random pixels per class, as ROOT/CLASS/IMAGE."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        folder = root / f"class_{number:05}"
        folder.mkdir(parents=True)
        for image in range(4):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{image}.png")


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 4500])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        commands: dict[tuple[str, int], list[str]] = {}
        best: dict[int, Path] = {}
        for classes in options.classes:
            folder = Path(scratch) / str(classes)
            root = folder / "images"
            make_images(root, classes)
            fit = [str(TRAIN), "fit", "--config", str(CONFIG), "--data.root", str(root), "--trainer.max_epochs", "1"]
            seconds([*fit, "--test_after_fit", "false"], folder)
            (best[classes],) = folder.glob("logs/**/best.ckpt")
            image, checkpoint = str(root / "class_00000" / "0.png"), str(best[classes])
            predict = [str(TRAIN), "predict", "--ckpt_path", checkpoint, "--data.root", image]
            commands["predict one image", classes] = predict
            commands["load_from_checkpoint", classes] = ["-c", LOAD, checkpoint]
        times: dict[tuple[str, int], list[float]] = {key: [] for key in sorted(commands)}
        for _ in range(options.repeats):
            for key in times:
                times[key].append(seconds(commands[key], Path(scratch)))
        print(f"{'CPU seconds':<24}{'classes':>8}{'median':>8}{'range':>14}{'best.ckpt':>10}")
        for (name, classes), values in times.items():
            spread, size = f"{min(values):.2f}-{max(values):.2f}", best[classes].stat().st_size / 1e6
            print(f"{name:<24}{classes:>8,}{statistics.median(values):>8.2f}{spread:>14}{size:>10.1f}")


if __name__ == "__main__":
    main()
