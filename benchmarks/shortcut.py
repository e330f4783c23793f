"""Shortcut learning: worst-group accuracy with and without balanced sampling.

    python benchmarks/shortcut.py [--root DIR] [--seeds 3] [--per_class 500]

Every image gets a colored patch in a corner. In train 95 % of the images in the first half of the classes have a red
patch and 95 % of those in the second half a blue one; in val and test both colors are equally frequent, so that a
network that relies on the patch misclassifies images whose patch conflicts with their class. The ConvNet is trained
with and without `data.columns.balance patch`. The table has the test accuracy on images whose patch agrees with the
class, and on those whose patch conflicts with it (the worst group). DIR holds CLASS/IMAGE, or split folders of which
train is used; by default the digits.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from project.datamodules import Digits
from project.machine import default_precision

REPOSITORY = Path(__file__).parents[1]
TRAIN = REPOSITORY / "train.py"
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SPLITS = {"train": (0.6, 0.95), "val": (0.15, 0.5), "test": (0.25, 0.5)}
"""Fraction of each class in the split, and probability that the patch agrees with the class."""


def plant(root: Path, folder: Path, per_class: int, seed: int) -> Path:
    """Write images with patches and a CSV of labels, patches and splits; return the CSV."""
    rng = np.random.default_rng(seed)
    classes = sorted(item for item in root.iterdir() if item.is_dir())
    rows = []
    for number, source in enumerate(classes):
        files = sorted(file for file in source.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        files = [files[i] for i in rng.permutation(len(files))[:per_class]]
        aligned, conflicting = ("red", "blue") if number < len(classes) / 2 else ("blue", "red")
        (folder / source.name).mkdir(parents=True)
        splits = np.repeat(list(SPLITS), [round(fraction * len(files)) for fraction, _ in SPLITS.values()])
        for file, split in zip(files, splits.tolist(), strict=False):
            agrees = rng.random() < SPLITS[split][1]
            image = Image.open(file).convert("RGB").resize((32, 32))
            color = aligned if agrees else conflicting
            image.paste(COLORS[color], (0, 0, 8, 8))
            name = f"{source.name}/{file.stem}.png"
            image.save(folder / name)
            rows.append([name, source.name, split, color, "agrees" if agrees else "conflicts"])
    table = folder / "labels.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split", "patch", "shortcut"])
        writer.writerows(rows)
    return table


def run(*command: str, cwd: Path) -> None:
    """Run a Python script or module in a folder; raise if it fails."""
    subprocess.run([sys.executable, *command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Run the benchmark; print one line per run, then the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per_class", type=int, default=500)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {default_precision('cpu')}", flush=True)
    recipes = {"plain": [], "balanced": ["--data.sampling", "balanced", "--data.columns.balance", "patch"]}
    results: dict[str, list[tuple[float, ...]]] = {name: [] for name in recipes}
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        root = args.root or Digits().prepare(here / "data")
        root = root / "train" if (root / "train").is_dir() else root
        for seed in range(args.seeds):
            table = plant(root, here / f"images{seed}", args.per_class, seed)
            for name, options in recipes.items():
                fit = [str(TRAIN), "fit", "--config", str(REPOSITORY / "configs" / "convnet.yaml")]
                options = ["--data.table", str(table), "--data.batch_transforms", "[]", *options]
                run(*fit, *options, "--run_name", name, "--seed_everything", str(seed), cwd=here)
                folder = here / "logs" / name / f"version_{seed}"
                run(str(TRAIN), "groups", str(folder), "--column", "shortcut", cwd=here)
                with (folder / "groups.csv").open() as stream:
                    accuracy = {row["group"]: float(row["accuracy"]) for row in csv.DictReader(stream)}
                results[name].append((accuracy["agrees"], accuracy["conflicts"]))
                print(f"seed {seed}, {name}: {accuracy}, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"\n{'mean over seeds':<18}{'patch agrees':>14}{'patch conflicts':>18}{'range':>20}")
    for name, values in results.items():
        agree, conflict = zip(*values, strict=True)
        spread = f"{min(conflict):.1%} to {max(conflict):.1%}"
        print(f"{name:<18}{statistics.mean(agree):>14.1%}{statistics.mean(conflict):>18.1%}{spread:>20}")


if __name__ == "__main__":
    main()
