"""Accuracy and membership inference of differentially private training by epsilon.

    python benchmarks/private.py [--epsilons 1 3 8] [--seeds 2] [-- OPTIONS OF train.py fit]
    python benchmarks/private.py -- --data.root CIFAR10 --data.image_size 32 --data.batch_size 1024 \
        --model.net project.modules.ResNet --model.net.norm group --model.optimizer.lr 0.002

Trains configs/private.yaml for each epsilon and without privacy, tests the best checkpoint and runs `leak_test`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from project.runs.read import read_run

REPOSITORY = Path(__file__).parents[1]


def load_config(epsilon: float | None) -> dict[str, Any]:
    """Return configs/private.yaml with another budget, or without privacy."""
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs/private.yaml").read_text())
    if epsilon is None:
        del config["trainer"]["callbacks"]
        del config["data"]["sampler"]
    else:
        config["trainer"]["callbacks"][0]["init_args"]["epsilon"] = epsilon
    return config


def measure(epsilon: float | None, seed: int, options: list[str]) -> tuple[float, float, float, float]:
    """Return epsilon spent, test accuracy, and AUC and true positive rate of the membership inference test."""
    train = [sys.executable, str(REPOSITORY / "train.py")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "config.yaml").write_text(yaml.safe_dump(load_config(epsilon)))
        (folder / "data").symlink_to(Path("data").resolve())
        options = [*options, "--seed_everything", str(seed)]
        for command in (["fit", "--config", "config.yaml", *options], ["leak_test", "--ckpt_path", "best"]):
            subprocess.run([*train, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        run = folder / "logs/private/version_0"
        leak, tested = json.loads((run / "leak_test.json").read_text()), read_run(run)
        assert tested.predictions is not None
        spent = tested.facts["notes"].get("privacy", {"epsilon": float("inf")})["epsilon"]
        return spent, tested.predictions.accuracy, leak["auc"], leak["found"]


def main() -> None:
    """Train and evaluate all runs, and print one line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1, 3, 8])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    Path("data").mkdir(exist_ok=True)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores\n{'budget':>8}{'seed':>6}", end="")
    print(f"{'epsilon':>9}{'accuracy':>10}{'leak AUC':>10}{'TPR':>8}", flush=True)
    for epsilon in (*args.epsilons, None):
        for seed in range(args.seeds):
            spent, accuracy, auc, rate = measure(epsilon, seed, args.options)
            name = "none" if epsilon is None else f"{epsilon:g}"
            print(f"{name:>8}{seed:>6}{spent:>9.2f}{accuracy:>10.2%}{auc:>10.3f}{rate:>8.2%}", flush=True)


if __name__ == "__main__":
    main()
