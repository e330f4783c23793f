"""A shortcut that training images offer, and what balancing it away is worth.

    python benchmarks/shortcut.py [--root DIR] [--seeds 3] [--per_class 500]

Every image gets a patch in a corner. In train the first half of the classes mostly has a red one, the second half a
blue one, at odds of 19 to 1; in val and test both are as frequent, so that a net that goes by the patch is wrong on the
images where it conflicts. DIR holds CLASS/IMAGE, or split folders of which train is used; by default the digits. The
ConvNet is trained plainly and with `data.balance_column patch`, and either is tested: the accuracy where patch and
class agree, and in the worst group, where they conflict.
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
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SPLITS = {"train": (0.6, 0.95), "val": (0.15, 0.5), "test": (0.25, 0.5)}
"""Share of each class, and how often patch and class agree."""


def plant(root: Path, folder: Path, per_class: int, seed: int) -> Path:
    """Write the images and the table of labels, patches and splits."""
    draw = np.random.default_rng(seed)
    classes = sorted(item for item in root.iterdir() if item.is_dir())
    rows = []
    for number, place in enumerate(classes):
        files = sorted(file for file in place.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        files = [files[i] for i in draw.permutation(len(files))[:per_class]]
        own, other = ("red", "blue") if number < len(classes) / 2 else ("blue", "red")
        (folder / place.name).mkdir(parents=True)
        splits = np.repeat(list(SPLITS), [round(share * len(files)) for share, _ in SPLITS.values()])
        for file, split in zip(files, splits.tolist(), strict=False):
            agrees = draw.random() < SPLITS[split][1]
            picture = Image.open(file).convert("RGB").resize((32, 32))
            picture.paste(COLORS[own if agrees else other], (0, 0, 8, 8))
            name = f"{place.name}/{file.stem}.png"
            picture.save(folder / name)
            verdict = "agrees" if agrees else "conflicts"
            rows.append([name, place.name, split, own if agrees else other, verdict])
    table = folder / "labels.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split", "patch", "shortcut"])
        writer.writerows(rows)
    return table


def run(*command: str, cwd: Path) -> None:
    """Run a command to its end."""
    subprocess.run([sys.executable, *command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print a line a run, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per_class", type=int, default=500)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {default_precision('cpu')}", flush=True)
    recipes = {"plain": [], "balanced": ["--data.sampling", "balanced", "--data.balance_column", "patch"]}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in recipes}
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        root = args.root or Digits().prepare(here / "data")
        root = root / "train" if (root / "train").is_dir() else root
        for seed in range(args.seeds):
            table = plant(root, here / f"images{seed}", args.per_class, seed)
            for name, options in recipes.items():
                fit = [str(REPOSITORY / "train.py"), "fit", "--config", str(REPOSITORY / "configs" / "convnet.yaml")]
                options = ["--data.labels", str(table), "--data.batch_transforms", "[]", *options]
                run(*fit, *options, "--run_name", name, "--seed_everything", str(seed), cwd=here)
                folder = here / "logs" / name / f"version_{seed}"
                run("-m", "project", "groups", str(folder), "--column", "shortcut", cwd=here)
                with (folder / "groups.csv").open() as stream:
                    accuracy = {row["group"]: float(row["accuracy"]) for row in csv.DictReader(stream)}
                found[name].append((accuracy["agrees"], accuracy["conflicts"]))
                print(f"seed {seed}, {name}: {accuracy}, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"\n{'mean over seeds':<18}{'patch agrees':>14}{'patch conflicts':>18}{'range':>20}")
    for name, values in found.items():
        agree, conflict = zip(*values, strict=True)
        span = f"{min(conflict):.1%} to {max(conflict):.1%}"
        print(f"{name:<18}{statistics.mean(agree):>14.1%}{statistics.mean(conflict):>18.1%}{span:>20}")


if __name__ == "__main__":
    main()
