"""Training throughput and accuracy of the ConvNet: plain PyTorch loop, optimized PyTorch loop, `train.py fit`.

    python benchmarks/training.py --root DIR             # images per second; takes some minutes
    python benchmarks/training.py --root DIR --accuracy  # also test accuracy and time, also on digits

DIR holds 32x32 images as DIR/{train,test}/CLASS/IMAGE, e.g. CIFAR-10.
"""

import argparse
import csv
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from project.cli import main as command
from project.datamodules import Digits
from project.datamodules.images.augment import augment
from project.datamodules.images.dataset import Images
from project.datamodules.images.packed import decode_all
from project.datamodules.images.transforms import RandomCrop
from project.datamodules.loader import Loader
from project.datamodules.sampler import EpochBatchSampler
from project.datamodules.tree import index_tree
from project.interface import Batch, ImageInput
from project.machine import default_precision, describe_device, keep_freed_memory
from project.modules import ConvNet
from project.modules.optimizers.groups import parameter_groups

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG = Path(__file__).parents[1] / "configs" / "cifar10.yaml"
FLOPS = 3 * 2 * (32**2 * 27 * 64 + 16**2 * 576 * 128 + 8192 * 512 + 512 * 10)
"""FLOPs of forward and backward pass of the ConvNet per 32x32 image, counted as three forward passes."""


class PlainLoop:
    """A plain PyTorch training loop: ImageFolder, batch size 64, Adam with lr 1e-3, no augmentation, float32."""

    def __init__(self, root: Path) -> None:
        from torchvision import datasets, transforms

        train = datasets.ImageFolder(str(root / "train"), transforms.ToTensor())
        self.test = DataLoader(datasets.ImageFolder(str(root / "test"), transforms.ToTensor()), 256, num_workers=2)
        self.train = DataLoader(train, batch_size=64, shuffle=True, num_workers=4, persistent_workers=True)
        self.net = ConvNet(len(train.classes), ImageInput(32, 32)).to(DEVICE)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)

    def epoch(self) -> Iterator[int]:
        """Train for one epoch, yielding the size of each batch after its step."""
        self.net.train()
        for image, label in self.train:
            loss = F.cross_entropy(self.net(image.to(DEVICE)), label.to(DEVICE))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            yield len(label)

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the accuracy on the test split."""
        self.net.eval()
        correct = [(self.net(image.to(DEVICE)).argmax(1).cpu() == label).float() for image, label in self.test]
        return float(torch.cat(correct).mean())


class OptimizedLoop:
    """A PyTorch training loop with the settings of a config and without Lightning.

    Args:
        root: Dataset directory.
        scratch: Directory for the packed images.
        batch_size: Images per step.
        net: Function that returns a network for (num_classes, inputs).
        optimizer: Function that returns an optimizer for parameter groups.
        transforms: Batch augmentation.
        label_smoothing: Label smoothing of the cross-entropy loss.
    """

    def __init__(
        self,
        root: Path,
        scratch: Path,
        batch_size: int,
        net: Callable[[int, ImageInput], nn.Module],
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        transforms: list[nn.Module],
        label_smoothing: float,
    ) -> None:
        index = index_tree(root)
        rows = index.rows("train")
        packed = decode_all(index, ImageInput(32, 32), [], 1e12, scratch / "packed").pixels
        pixels = torch.tensor(packed, device=DEVICE) if DEVICE.type == "cuda" else packed
        batches = EpochBatchSampler(len(rows), batch_size, "reshuffled each epoch")
        self.loader = Loader(Images(index, rows, ImageInput(32, 32), pixels=pixels), batches, 0, pin_memory=False)
        self.transforms, self.label_smoothing = transforms, label_smoothing
        self.net = net(len(index.class_names), ImageInput(32, 32)).to(DEVICE, memory_format=torch.channels_last)
        self.optimizer = optimizer(parameter_groups(self.net))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, [group["lr"] for group in self.optimizer.param_groups], 100_000, cycle_momentum=False
        )
        channel_statistics = torch.tensor([[0.49, 0.48, 0.45], [0.25, 0.24, 0.26]], device=DEVICE)
        self.mean, self.std = channel_statistics.view(2, 1, 3, 1, 1)
        self.bf16 = default_precision("auto") == "bf16-mixed"

    def epoch(self) -> Iterator[int]:
        """Train for one epoch, yielding the size of each batch after its step."""
        for loaded in self.loader:
            batch = Batch(*(part.to(DEVICE, non_blocking=True) for part in loaded))
            with torch.no_grad():
                image = (augment(batch, self.transforms, 10).inputs - self.mean) / self.std
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bf16):
                loss = F.cross_entropy(self.net(image), batch.target, label_smoothing=self.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            yield len(batch.target)


def _cifar10(root: Path, scratch: Path) -> OptimizedLoop:
    """Return a loop with the settings of configs/cifar10.yaml."""
    from kornia.augmentation import RandomHorizontalFlip

    optimizer = partial(torch.optim.AdamW, lr=0.003, weight_decay=0.05, fused=True)
    return OptimizedLoop(root, scratch, 256, ConvNet, optimizer, [RandomHorizontalFlip(), RandomCrop()], 0.1)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def rate(epoch: Iterator[int], images: int, warm_up: int = 5) -> float:
    """Return images per second over about `images` images, or the rest of the epoch, after some warm-up batches."""
    for _ in range(warm_up):
        next(epoch)
    synchronize()
    start, total = time.perf_counter(), 0
    for count in epoch:
        total += count
        if total >= images:
            break
    synchronize()
    return total / (time.perf_counter() - start)


def fit(config: Path, root: Path, scratch: Path, *options: str) -> list[dict[str, str]]:
    """Run `train.py fit` and return the rows of its metrics.csv."""
    paths = ["--data.root", str(root), "--data.cache_dir", str(scratch), "--trainer.default_root_dir", str(scratch)]
    before = set(scratch.glob("*/version_*"))
    command(["fit", "--config", str(config), *paths, "--trainer.enable_progress_bar", "false", *options])
    (run,) = set(scratch.glob("*/version_*")) - before
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    shutil.rmtree(run)  # checkpoints fill the disk and the page cache
    return rows


def in_subprocess(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process, which has the default memory and thread settings."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *args).result()


def peak_flops() -> float:
    """Return FLOPS of a large matrix product in the training precision."""
    dtype = torch.bfloat16 if default_precision("auto") == "bf16-mixed" else torch.float32
    side = 8192 if DEVICE.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=DEVICE).to(dtype)
    a @ b
    synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    synchronize()
    return 10 * 2 * side**3 / (time.perf_counter() - start)


def plain_rate(root: Path, images: int) -> float:
    """Return images per second of the plain loop."""
    return rate(PlainLoop(root).epoch(), images)


def plain_epochs(root: Path, epochs: int) -> list[tuple[float, float]]:
    """Return cumulative training seconds and test accuracy after each epoch of the plain loop."""
    loop, seconds, results = PlainLoop(root), 0.0, []
    for _ in range(epochs):
        start = time.perf_counter()
        sum(loop.epoch())
        seconds += time.perf_counter() - start
        results.append((seconds, loop.accuracy()))
    return results


def throughput(root: Path, scratch: Path, repeats: int, images: int) -> None:
    """Print images per second of the three variants, measured in turn."""
    keep_freed_memory()  # `fit` also does this and the next line
    torch.backends.cudnn.benchmark = True
    optimized = _cifar10(root, scratch)
    steps = str(images // 256)
    rates: dict[str, list[float]] = {"plain PyTorch loop": [], "optimized PyTorch loop": [], "train.py fit": []}
    ratios = []
    for _ in range(repeats):
        rates["plain PyTorch loop"].append(in_subprocess(plain_rate, root, images))
        before = rate(optimized.epoch(), images)
        limits = ["--trainer.max_epochs", "3", "--trainer.limit_train_batches", steps, "--test_after_fit", "false"]
        rows = fit(CONFIG, root, scratch, *limits, "--trainer.limit_val_batches", "1")
        rates["train.py fit"].append([float(v) for row in rows if (v := row["train/images_per_second"])][-1])
        after = rate(optimized.epoch(), images)
        rates["optimized PyTorch loop"] += [before, after]
        ratios.append(2 * rates["train.py fit"][-1] / (before + after))  # averages out drift of the machine's speed
    peak, baseline = peak_flops(), statistics.median(rates["plain PyTorch loop"])
    print(f"\n{'':<28}{'images/s':>9}{'range':>16}{'speedup':>10}{'of matmul peak':>16}")
    for name, values in rates.items():
        middle, spread = statistics.median(values), f"{min(values):,.0f}-{max(values):,.0f}"
        print(f"{name:<28}{middle:>9,.0f}{spread:>16}{middle / baseline:>10.2f}{middle * FLOPS / peak:>16.0%}")
    print(f"train.py fit / optimized loop: {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")


def accuracy(root: Path, scratch: Path) -> None:
    """Print test accuracy and seconds of the plain loop by epoch, and of `train.py fit` for several lengths."""
    print(f"\n{root.name}: test accuracy", flush=True)
    for epoch, (seconds, correct) in enumerate(in_subprocess(plain_epochs, root, 5), 1):
        print(f"plain PyTorch loop, {epoch} epochs: {correct:.2%}, {seconds:,.0f} s of training")
    for epochs in (2, 5, 8):
        start = time.perf_counter()
        rows = fit(CONFIG, root, scratch, "--trainer.max_epochs", str(epochs))
        seconds = time.perf_counter() - start
        print(f"train.py fit, {epochs} epochs: {float(rows[-1]['test/acc']):.2%}, {seconds:,.0f} s in total")


def digits(scratch: Path) -> Path:
    """Write the handwritten digits as a second dataset, every fifth image in test, and return its directory."""
    source, root = Digits().prepare(scratch), scratch / "handwritten digits"
    for number, image in enumerate(sorted(source.glob("*/*.png"))):
        folder = root / ("train" if number % 5 else "test") / image.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        image.rename(folder / image.name)
    return root


def main() -> None:
    """Run the benchmarks and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--images", type=int, default=47_360, help="images per measurement; by default an epoch of CIFAR-10"
    )
    parser.add_argument("--accuracy", action="store_true")
    args = parser.parse_args()
    if not (args.root / "train").is_dir() or not (args.root / "test").is_dir():
        parser.error(f"no train/ or test/ in {args.root}")
    print(f"torch {torch.__version__}, {describe_device(DEVICE)}, {default_precision('auto')}")
    with tempfile.TemporaryDirectory() as scratch:
        if args.repeats:
            throughput(args.root, Path(scratch), args.repeats, args.images)
        if args.accuracy:
            accuracy(args.root, Path(scratch))
            accuracy(digits(Path(scratch)), Path(scratch))


if __name__ == "__main__":
    main()
