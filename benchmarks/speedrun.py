"""configs/cifar10_speedrun.yaml: its time against a bare loop of the same net, and its accuracy over seeds.

    python benchmarks/speedrun.py --root CIFAR10 [--repeats 3] [--seeds 3]

CIFAR10 holds train/ and test/, each with a folder a class. The bare loop has the same net, optimizer, augmentation
and packed images, and nothing around it; it is there for its time, so any schedule and first layer do. It is timed with
the record's 2,000 images a step, and with the config's 500 and freed memory kept as `fit` does. All are timed in
turn, over the same number of images, validation apart. With --seeds 0 nothing is trained to the end.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from training import DEVICE, Bare, apart, fit, rate

from project.datamodules.images.transforms import AlternatingFlip, RandomCrop
from project.machine import default_precision, describe_device, keep_freed_memory
from project.modules import Muon, SpeedrunNet

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_speedrun.yaml"
RECORD, OURS = 2000, 500
"""Images of a step."""


def bare_loop(root: Path, scratch: Path, batch_size: int) -> Bare:
    """The settings of the config."""
    recipe = {"lr": 0.12, "momentum": 0.6, "steps": 3, "fixed_norm": True, "weight_decay": 0.004}
    rest = {"head_lr": 0.01, "vector_lr": 53, "sgd_momentum": 0.85}
    optimizer = partial(Muon, **recipe, **rest)
    return Bare(root, scratch, batch_size, SpeedrunNet, optimizer, [AlternatingFlip(), RandomCrop()], 0.2)


def plain_rate(root: Path, scratch: Path, images: int) -> float:
    """Images a second of the bare loop where nothing was done for the process."""
    return rate(bare_loop(root, scratch, RECORD).epoch(), images, warm_up=1)


def speed(root: Path, scratch: Path, repeats: int, images: int) -> None:
    """Print images per second of the bare loop and of `fit`."""
    keep_freed_memory()  # as `fit` does, and this too
    torch.backends.cudnn.benchmark = True
    bare = bare_loop(root, scratch, OURS)
    rates: dict[str, list[float]] = {"bare loop, 2,000": [], "500, memory kept": [], "our fit": []}
    limits = ["--trainer.limit_val_batches", "1", "--test_after_fit", "false", "--trainer.max_epochs", "2"]
    for _ in range(repeats):
        rates["bare loop, 2,000"].append(apart(plain_rate, root, scratch, images))
        rates["500, memory kept"].append(rate(bare.epoch(), images, warm_up=2))
        rows = fit(CONFIG, root, scratch, *limits, "--trainer.limit_train_batches", str(images // OURS))
        rates["our fit"].append([float(v) for row in rows if (v := row["train/images_per_second"])][-1])
    print(f"\n{'':<24}{'images/s':>9}{'range':>12}{'s an epoch':>12}")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:<24}{middle:>9,.0f}{f'{min(values):,.0f}-{max(values):,.0f}':>12}{50_000 / middle:>12,.0f}")


def accuracy(root: Path, scratch: Path, seeds: int) -> None:
    """Print the test accuracy of each seed and its mean."""
    found = []
    for seed in range(seeds):
        start = time.perf_counter()
        rows = fit(CONFIG, root, scratch, "--seed_everything", str(seed))
        found.append(float(rows[-1]["test/acc"]))
        print(f"seed {seed}: {found[-1]:.2%} in {time.perf_counter() - start:,.0f} s, start-up and test included")
    spread = f", standard deviation {statistics.stdev(found):.2%}" if seeds > 1 else ""
    print(f"mean {statistics.mean(found):.2%}{spread}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {describe_device(DEVICE)}, {default_precision('auto')}")
    with tempfile.TemporaryDirectory() as scratch:
        speed(args.root, Path(scratch), args.repeats, args.images)
        if args.seeds:
            accuracy(args.root, Path(scratch), args.seeds)


if __name__ == "__main__":
    main()
