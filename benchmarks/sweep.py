"""A sweep with a time limit, then a comparison of the unchanged config and the best one over several seeds.

    python benchmarks/sweep.py --root DIR [--minutes 30] [--epochs 3] [--seeds 3] [--config configs/cifar10.yaml]

DIR is an image dataset with a test split, e.g. CIFAR-10. A trial that is running at the time limit is completed. The
sweep uses only the val split, the comparison the test split.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from training import fit

from project.machine import default_precision

REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    """Run the sweep and the comparison, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "cifar10.yaml")
    parser.add_argument("--space", type=Path, default=REPOSITORY / "configs" / "sweep" / "convnet.yaml")
    parser.add_argument(
        "--folder", type=Path, default=Path("logs/sweep_benchmark"), help="an existing sweep in it is resumed"
    )
    args = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {default_precision('cpu')},"
        f" load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    options = ["--data.root", str(args.root), "--trainer.max_epochs", str(args.epochs)]
    options += ["--trainer.default_root_dir", str(args.folder)]
    command = [
        sys.executable,
        str(REPOSITORY / "train.py"),
        "sweep",
        "--config",
        str(args.config),
        "--space",
        str(args.space),
    ]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--name", "sweep", "--trials", "1000", "--minutes", str(args.minutes), "--", *options], check=True
    )
    print(f"the sweep took {(time.perf_counter() - start) / 60:.1f} minutes\n", flush=True)
    best = args.folder / "sweeps" / "sweep" / "best.yaml"
    print(f"{'test accuracy, seeds from 1':<32}{'mean':>8}{'std':>8}   each")  # the sweep uses the config's seed
    for name, config in {"unchanged config": args.config, "best of the sweep": best}.items():
        scores = []
        for seed in range(1, args.seeds + 1):
            rows = fit(
                config, args.root, args.folder, "--trainer.max_epochs", str(args.epochs), "--seed_everything", str(seed)
            )
            scores += [float(row["test/acc"]) for row in rows if row.get("test/acc")]
        spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
        each = "  ".join(f"{score:.2%}" for score in scores)
        print(f"{name:<32}{statistics.mean(scores):>8.2%}{spread:>8.2%}   {each}", flush=True)


if __name__ == "__main__":
    main()
