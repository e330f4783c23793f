"""Training throughput of configs/cifar10_speedrun.yaml against a PyTorch loop, and test accuracy over seeds.

    python benchmarks/speedrun.py --root CIFAR10 [--repeats 3] [--seeds 3]

CIFAR10 holds {train,test}/CLASS/IMAGE. The loop has the same network, optimizer, augmentation and packed images; it is
only timed, so its schedule and first layer differ. It runs with the paper's batch size of 2,000, and with the config's
batch size of 500 and freed memory kept, as in `fit`. All are timed in turn, over the same number of images, without
validation. --seeds 0 skips the accuracy.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from training import DEVICE, OptimizedLoop, fit, in_subprocess, rate

from project.datamodules.images.transforms import AlternatingFlip, RandomCrop
from project.machine import default_precision, describe_device, keep_freed_memory
from project.modules import Muon, SpeedrunNet

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_speedrun.yaml"
PAPER_BATCH, CONFIG_BATCH = 2000, 500


def make_loop(root: Path, scratch: Path, batch_size: int) -> OptimizedLoop:
    """Return a loop with the settings of the config."""
    recipe = {"lr": 0.12, "momentum": 0.6, "steps": 3, "fixed_norm": True, "weight_decay": 0.004}
    rest = {"head_lr": 0.01, "vector_lr": 53, "sgd_momentum": 0.85}
    optimizer = partial(Muon, **recipe, **rest)
    return OptimizedLoop(root, scratch, batch_size, SpeedrunNet, optimizer, [AlternatingFlip(), RandomCrop()], 0.2)


def default_rate(root: Path, scratch: Path, images: int) -> float:
    """Return images per second of the loop with the paper's batch size and default memory settings."""
    return rate(make_loop(root, scratch, PAPER_BATCH).epoch(), images, warm_up=1)


def speed(root: Path, scratch: Path, repeats: int, images: int) -> None:
    """Print images per second of the loop and of `fit`."""
    keep_freed_memory()  # `fit` also does this and the next line
    torch.backends.cudnn.benchmark = True
    loop = make_loop(root, scratch, CONFIG_BATCH)
    rates: dict[str, list[float]] = {"loop, 2,000": [], "loop, 500, memory kept": [], "train.py fit": []}
    limits = ["--trainer.limit_val_batches", "1", "--test_after_fit", "false", "--trainer.max_epochs", "2"]
    for _ in range(repeats):
        rates["loop, 2,000"].append(in_subprocess(default_rate, root, scratch, images))
        rates["loop, 500, memory kept"].append(rate(loop.epoch(), images, warm_up=2))
        rows = fit(CONFIG, root, scratch, *limits, "--trainer.limit_train_batches", str(images // CONFIG_BATCH))
        rates["train.py fit"].append([float(v) for row in rows if (v := row["train/images_per_second"])][-1])
    print(f"\n{'':<24}{'images/s':>9}{'range':>12}{'s per epoch':>12}")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:<24}{middle:>9,.0f}{f'{min(values):,.0f}-{max(values):,.0f}':>12}{50_000 / middle:>12,.0f}")


def accuracy(root: Path, scratch: Path, seeds: int) -> None:
    """Print the test accuracy of each seed and the mean."""
    scores = []
    for seed in range(seeds):
        start = time.perf_counter()
        rows = fit(CONFIG, root, scratch, "--seed_everything", str(seed))
        scores.append(float(rows[-1]["test/acc"]))
        print(f"seed {seed}: {scores[-1]:.2%} in {time.perf_counter() - start:,.0f} s, with start-up and test")
    spread = f", standard deviation {statistics.stdev(scores):.2%}" if seeds > 1 else ""
    print(f"mean {statistics.mean(scores):.2%}{spread}")


def main() -> None:
    """Run the benchmarks and print the tables."""
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
