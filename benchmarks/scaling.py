"""Distributed training on a CPU: throughput, cost of the gradient all-reduce, and set-up time of large datasets.

    python benchmarks/scaling.py                       # takes 15 minutes on two cores
    python benchmarks/scaling.py --files 1000 10000    # without the large datasets

All images are generated. The plot is written to docs/scaling.svg.
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from project.datamodules import ImageDataModule
from project.interface import ImageInput
from project.modules import ConvNet

REPOSITORY = Path(__file__).parents[1]
SETUPS = {
    "1 process, 1 thread": (1, 1, "auto"),
    "1 process, 2 threads": (1, 2, "auto"),
    "2 processes, ddp": (2, 1, "ddp"),
    "2 processes, fsdp2": (2, 1, "fsdp2"),
}
LINKS = 20_000
"""Hard links per file; some file systems allow at most 65,000."""


def table(title: str, rows: dict[str, Sequence[float]], number_format: str) -> None:
    """Print the median and range of each row."""
    print(f"\n{title:<34}{'median':>10}{'range':>20}")
    for name, values in rows.items():
        spread = f"{min(values):{number_format}}-{max(values):{number_format}}"
        print(f"{name:<34}{statistics.median(values):>10{number_format}}{spread:>20}", flush=True)


def write_images(root: Path, files: int, size: int) -> None:
    """Write images of two classes; most of many files are hard links, to save disk space."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
    for number in range(files):
        file = root / "ab"[number % 2] / f"{number:07d}.png"
        if number % LINKS < 2:
            Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(file)
            first = number - number % 2
        else:
            os.link(root / "ab"[number % 2] / f"{first + number % 2:07d}.png", file)


# -- throughput -------------------------------------------------------------------------------------------------------


def images_per_second(root: Path, scratch: Path, world: int, threads: int, strategy: str) -> float:
    """Return images per second of the second epoch of `train.py fit` with the ConvNet and default augmentation."""
    name = f"run{time.time_ns()}"
    options = {
        "data.root": root,
        "data.cache_dir": scratch / "cache",
        "data.batch_size": 128,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.devices": world,
        "trainer.strategy": strategy,
        "trainer.max_epochs": 2,
        "trainer.limit_train_batches": 12,
        "trainer.limit_val_batches": 1,
        "trainer.default_root_dir": scratch,
        "test_after_fit": "false",
        "run_name": name,
    }
    command = [sys.executable, str(REPOSITORY / "train.py"), "fit"]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    with (scratch / name / "version_0" / "metrics.csv").open(newline="") as stream:
        return [float(value) for row in csv.DictReader(stream) if (value := row["train/images_per_second"])][-1]


def throughput(scratch: Path, repeats: int) -> None:
    """Print images per second of each setup, measured in turn."""
    root = scratch / "images"
    write_images(root, 4096, 32)
    rates: dict[str, list[float]] = {name: [] for name in SETUPS}
    for _ in range(repeats):
        for name, setup in SETUPS.items():
            rates[name].append(images_per_second(root, scratch, *setup))
    table("images per second", rates, ",.0f")


# -- gradient all-reduce ----------------------------------------------------------------------------------------------


def all_reduce(rank: int, store: str, repeats: int) -> None:
    """Run one of two processes; print milliseconds of a step of 64 images with and without all-reduce, in turn."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    net = DistributedDataParallel(ConvNet(10, ImageInput(32, 32)))
    image, label = torch.rand(64, 3, 32, 32), torch.zeros(64, dtype=torch.int64)
    times: dict[str, list[float]] = {"step without all-reduce": [], "step with all-reduce": []}
    for number in range(2 * repeats + 4):
        local = number % 2 == 0
        dist.barrier()
        start = time.perf_counter()
        if local:
            with net.no_sync():
                F.cross_entropy(net(image), label).backward()
        else:
            F.cross_entropy(net(image), label).backward()
        net.zero_grad()
        dist.barrier()  # a step ends when the slower process is done
        if number >= 4:
            times["step without all-reduce" if local else "step with all-reduce"].append(
                1000 * (time.perf_counter() - start)
            )
    if rank == 0:
        parameters = sum(p.numel() for p in net.parameters())
        pairs = zip(times["step with all-reduce"], times["step without all-reduce"], strict=True)
        cost = {"all-reduce": [with_it - without for with_it, without in pairs]}
        table(f"ms, {4 * parameters / 1e6:.0f} MB of gradients, gloo", {**times, **cost}, ".0f")
    dist.destroy_process_group()


# -- set-up time ------------------------------------------------------------------------------------------------------


def start_up(root: str, cache: str) -> None:
    """Print seconds of `setup` and by how many megabytes it raised the peak memory of this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    data = ImageDataModule(root, image_size=8, cache_dir=cache)
    data.setup("fit")
    seconds = time.perf_counter() - start
    print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def large_datasets(scratch: Path, sizes: Sequence[int]) -> None:
    """Print and plot seconds and memory of the first and second start on a dataset."""
    results: list[tuple[float, ...]] = []
    print(f"\n{'files':>10}{'first start, s':>16}{'MB':>8}{'second start, s':>18}{'MB':>8}")
    for size in sizes:
        root, cache = scratch / f"set{size}", scratch / f"cache{size}"
        write_images(root, size, 8)
        time.sleep(1.5)  # only folders unchanged for a moment are cached in the index
        numbers: list[float] = []
        for _ in range(2):
            command = [sys.executable, __file__, "--start-up", str(root), str(cache)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            numbers += [float(number) for number in output.split()[-2:]]
        results.append((size, *numbers))
        print("{:>10,}{:>16.1f}{:>8.0f}{:>18.1f}{:>8.0f}".format(*results[-1]), flush=True)
    plot(np.array(results), REPOSITORY / "docs" / "scaling.svg")


def plot(results: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", file: Path) -> None:
    """Plot set-up time and memory against the number of files, on logarithmic scales."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "scaling"  # makes the file reproducible
    figure = Figure(figsize=(8, 3), layout="constrained")
    for number, (title, column) in enumerate({"seconds before training": 1, "megabytes of memory": 2}.items(), 1):
        axes = figure.add_subplot(1, 2, number)
        axes.loglog(results[:, 0], results[:, column], "o-", label="first start")
        axes.loglog(results[:, 0], results[:, column + 2], "s-", label="second start")
        axes.set(xlabel="files", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Run the benchmarks and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--files", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--start-up", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start_up:
        return start_up(*args.start_up)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as scratch:
        throughput(Path(scratch), args.repeats)
        torch.multiprocessing.spawn(all_reduce, (str(Path(scratch) / "store"), 10 * args.repeats), nprocs=2)
        large_datasets(Path(scratch), args.files)
    return None


if __name__ == "__main__":
    main()
