"""Test accuracy of the ConvNet alone and with the network of configs/cifar10_speedrun.yaml as its teacher.

    python benchmarks/distillation.py --root CIFAR10 [--teacher FILE] [--config FILE] [--seeds 3] [-- OPTIONS]

CIFAR10 holds {train,test}/CLASS/IMAGE. The teacher is a checkpoint of configs/cifar10_speedrun.yaml, which is trained
first if none is given. Each seed trains both students for the same number of epochs, differing in `model.teacher` only.
OPTIONS are for both students, e.g. --trainer.precision bf16-mixed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from training import CONFIG, DEVICE, fit

from project.cli import main as command
from project.machine import default_precision, describe_device

TEACHER, STUDENT = (CONFIG.with_name(f"cifar10_{name}.yaml") for name in ("speedrun", "baseline"))


def train_teacher(root: Path, scratch: Path) -> Path:
    """Train the teacher, print its test accuracy, and return its checkpoint."""
    paths = ["--data.root", str(root), "--data.cache_dir", str(scratch), "--trainer.default_root_dir", str(scratch)]
    command(["fit", "--config", str(TEACHER), *paths, "--run_name", "teacher"])
    return scratch / "teacher/version_0/checkpoints/last.ckpt"


def main() -> None:
    """Train all students; print one line per run, then the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--config", type=Path, default=STUDENT)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {describe_device(DEVICE)}, {default_precision('auto')}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        teacher = args.teacher or train_teacher(args.root, Path(folder))
        students = {"alone": [], "with teacher": ["--model.teacher", str(teacher)]}
        scores: dict[str, list[float]] = {name: [] for name in students}
        for seed in range(args.seeds):
            for name, options in students.items():
                start = time.perf_counter()
                rows = fit(
                    args.config, args.root, Path(folder), "--seed_everything", str(seed), *options, *args.options
                )
                scores[name].append(float(rows[-1]["test/acc"]))
                seconds = time.perf_counter() - start
                print(f"seed {seed}, {name}: {scores[name][-1]:.2%} in {seconds:,.0f} s, with start-up", flush=True)
    for name, values in scores.items():
        print(f"{name}: mean {statistics.mean(values):.2%}, {min(values):.2%}-{max(values):.2%}")
    gains = [taught - alone for alone, taught in zip(scores["alone"], scores["with teacher"], strict=True)]
    print(f"gain in points: mean {100 * statistics.mean(gains):.2f}, {', '.join(f'{100 * g:.2f}' for g in gains)}")


if __name__ == "__main__":
    main()
