"""How fast and how well the course's ConvNet trains: the course's loop, a bare loop with our settings, our `fit`.

    python benchmarks/training.py --root DIR             # images per second, some minutes
    python benchmarks/training.py --root DIR --accuracy  # also test accuracy and time, and on handwritten digits

DIR is a tree of 32x32 images, DIR/{train,test}/CLASS/IMAGE, such as CIFAR-10.
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
from project.datamodules.index import index_tree
from project.datamodules.loader import Loader
from project.datamodules.sampler import EpochBatchSampler
from project.interface import Batch, ImageInput
from project.machine import default_precision, describe_device, keep_freed_memory
from project.modules import ConvNet
from project.modules.optimizers.groups import parameter_groups

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG = Path(__file__).parents[1] / "configs" / "cifar10.yaml"
FLOPS = 3 * 2 * (32**2 * 27 * 64 + 16**2 * 576 * 128 + 8192 * 512 + 512 * 10)
"""Of one image's forward and backward pass through the ConvNet at 32x32, counted as three forward passes."""


class Course:
    """The course's loop as a beginner writes it: ImageFolder, batch 64, Adam at 1e-3, no augmentation; float32."""

    def __init__(self, root: Path) -> None:
        from torchvision import datasets, transforms

        train = datasets.ImageFolder(str(root / "train"), transforms.ToTensor())
        self.test = DataLoader(datasets.ImageFolder(str(root / "test"), transforms.ToTensor()), 256, num_workers=2)
        self.train = DataLoader(train, batch_size=64, shuffle=True, num_workers=4, persistent_workers=True)
        self.net = ConvNet(len(train.classes), ImageInput(32, 32)).to(DEVICE)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)

    def epoch(self) -> Iterator[int]:
        """Train for an epoch; yields the size of each batch once it is learnt."""
        self.net.train()
        for image, label in self.train:
            loss = F.cross_entropy(self.net(image.to(DEVICE)), label.to(DEVICE))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            yield len(label)

    @torch.no_grad()
    def accuracy(self) -> float:
        """Of the test split."""
        self.net.eval()
        hits = [(self.net(image.to(DEVICE)).argmax(1).cpu() == label).float() for image, label in self.test]
        return float(torch.cat(hits).mean())


class Bare:
    """A loop with the settings of a config and nothing around it.

    Args:
        root: The images, as `train.py` takes them.
        scratch: Where they are packed.
        batch_size: Images in one step.
        net: Builds the net from (num_classes, image_size).
        optimizer: Builds the optimizer from the net's groups of parameters.
        transforms: Augmentation of a batch.
        label_smoothing: As of the classifier.
    """

    def __init__(
        self,
        root: Path,
        scratch: Path,
        batch_size: int,
        net: Callable[[int, int], nn.Module],
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        transforms: list[nn.Module],
        label_smoothing: float,
    ) -> None:
        index = index_tree(root)
        rows = index.rows("train")
        packed = decode_all(index, 32, [], True, scratch / "packed").pixels
        pixels = torch.tensor(packed, device=DEVICE) if DEVICE.type == "cuda" else packed
        batches = EpochBatchSampler(len(rows), batch_size, "new each epoch")
        self.loader = Loader(Images(index, rows, 32, pixels=pixels), batches, 0, pin_memory=False)
        self.transforms, self.label_smoothing = transforms, label_smoothing
        self.net = net(len(index.class_names), 32).to(DEVICE, memory_format=torch.channels_last)
        self.optimizer = optimizer(parameter_groups(self.net))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, [group["lr"] for group in self.optimizer.param_groups], 100_000, cycle_momentum=False
        )
        figures = torch.tensor([[0.49, 0.48, 0.45], [0.25, 0.24, 0.26]], device=DEVICE)
        self.mean, self.std = figures.view(2, 1, 3, 1, 1)
        self.bf16 = default_precision("auto") == "bf16-mixed"

    def epoch(self) -> Iterator[int]:
        """Train for an epoch; yields the size of each batch once it is learnt."""
        for read in self.loader:
            batch = Batch(*(part.to(DEVICE, non_blocking=True) for part in read))
            with torch.no_grad():
                image = (augment(batch, self.transforms, 10).inputs - self.mean) / self.std
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bf16):
                loss = F.cross_entropy(self.net(image), batch.target, label_smoothing=self.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            yield len(batch.target)


def _cifar10(root: Path, scratch: Path) -> Bare:
    """The settings of configs/cifar10.yaml."""
    from kornia.augmentation import RandomHorizontalFlip

    optimizer = partial(torch.optim.AdamW, lr=0.003, weight_decay=0.05, fused=True)
    return Bare(root, scratch, 256, ConvNet, optimizer, [RandomHorizontalFlip(), RandomCrop()], 0.1)


def wait() -> None:
    """Until a GPU has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def rate(epoch: Iterator[int], images: int, warm_up: int = 5) -> float:
    """Images a second over about so many images, or what the epoch has left after a few batches to warm up."""
    for _ in range(warm_up):
        next(epoch)
    wait()
    start, seen = time.perf_counter(), 0
    for count in epoch:
        seen += count
        if seen >= images:
            break
    wait()
    return seen / (time.perf_counter() - start)


def fit(config: Path, root: Path, scratch: Path, *options: str) -> list[dict[str, str]]:
    """Run `train.py fit`; the rows of its metrics.csv."""
    place = ["--data.root", str(root), "--data.cache_dir", str(scratch), "--trainer.default_root_dir", str(scratch)]
    before = set(scratch.glob("*/version_*"))
    command(["fit", "--config", str(config), *place, "--trainer.enable_progress_bar", "false", *options])
    (run,) = set(scratch.glob("*/version_*")) - before
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    shutil.rmtree(run)  # its checkpoints fill the disk, and memory that the system has to find anew for the next ones
    return rows


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """Call in a process of its own, which has none of the settings that ours makes for itself."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *args).result()


def peak() -> float:
    """Floating-point operations a second of a large matrix product in the precision that we train in."""
    kind = torch.bfloat16 if default_precision("auto") == "bf16-mixed" else torch.float32
    side = 8192 if DEVICE.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=DEVICE).to(kind)
    a @ b
    wait()
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    wait()
    return 10 * 2 * side**3 / (time.perf_counter() - start)


def course_rate(root: Path, images: int) -> float:
    """Images a second of the course's loop."""
    return rate(Course(root).epoch(), images)


def course_epochs(root: Path, epochs: int) -> list[tuple[float, float]]:
    """Seconds of training so far and accuracy after each epoch of the course's loop."""
    course, seconds, found = Course(root), 0.0, []
    for _ in range(epochs):
        start = time.perf_counter()
        sum(course.epoch())
        seconds += time.perf_counter() - start
        found.append((seconds, course.accuracy()))
    return found


def throughput(root: Path, scratch: Path, repeats: int, images: int) -> None:
    """Print images per second of the three, measured in turn."""
    keep_freed_memory()  # as `fit` does, and this too
    torch.backends.cudnn.benchmark = True
    bare = _cifar10(root, scratch)
    steps = str(images // 256)
    rates: dict[str, list[float]] = {"course's loop": [], "bare loop, our settings": [], "our fit": []}
    ratios = []
    for _ in range(repeats):
        rates["course's loop"].append(apart(course_rate, root, images))
        before = rate(bare.epoch(), images)
        limits = ["--trainer.max_epochs", "3", "--trainer.limit_train_batches", steps, "--test_after_fit", "false"]
        rows = fit(CONFIG, root, scratch, *limits, "--trainer.limit_val_batches", "1")
        rates["our fit"].append([float(v) for row in rows if (v := row["train/images_per_second"])][-1])
        after = rate(bare.epoch(), images)
        rates["bare loop, our settings"] += [before, after]
        ratios.append(2 * rates["our fit"][-1] / (before + after))  # between two, as machines drift
    most, base = peak(), statistics.median(rates["course's loop"])
    print(f"\n{'':<28}{'images/s':>9}{'range':>16}{'x course':>10}{'of matrix peak':>16}")
    for name, values in rates.items():
        middle, spread = statistics.median(values), f"{min(values):,.0f}-{max(values):,.0f}"
        print(f"{name:<28}{middle:>9,.0f}{spread:>16}{middle / base:>10.2f}{middle * FLOPS / most:>16.0%}")
    print(f"our fit / bare loop: {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")


def accuracy(root: Path, scratch: Path) -> None:
    """Print test accuracy and seconds of the course's loop by epoch, and of our `fit` at several lengths."""
    print(f"\n{root.name}: test accuracy", flush=True)
    for epoch, (seconds, share) in enumerate(apart(course_epochs, root, 5), 1):
        print(f"course's loop, {epoch} epochs: {share:.2%}, {seconds:,.0f} s of training")
    for epochs in (2, 5, 8):
        start = time.perf_counter()
        rows = fit(CONFIG, root, scratch, "--trainer.max_epochs", str(epochs))
        seconds = time.perf_counter() - start
        print(f"our fit, {epochs} epochs: {float(rows[-1]['test/acc']):.2%}, {seconds:,.0f} s in all")


def digits(scratch: Path) -> Path:
    """A second data set: handwritten digits, every fifth for the test."""
    source, root = Digits().prepare(scratch), scratch / "handwritten digits"
    for number, image in enumerate(sorted(source.glob("*/*.png"))):
        place = root / ("train" if number % 5 else "test") / image.parent.name
        place.mkdir(parents=True, exist_ok=True)
        image.rename(place / image.name)
    return root


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=47_360, help="in a measurement; by default an epoch of CIFAR-10")
    parser.add_argument("--accuracy", action="store_true")
    args = parser.parse_args()
    if not (args.root / "train").is_dir() or not (args.root / "test").is_dir():
        parser.error(f"{args.root} lacks train/ or test/")
    print(f"torch {torch.__version__}, {describe_device(DEVICE)}, {default_precision('auto')}")
    with tempfile.TemporaryDirectory() as scratch:
        if args.repeats:
            throughput(args.root, Path(scratch), args.repeats, args.images)
        if args.accuracy:
            accuracy(args.root, Path(scratch))
            accuracy(digits(Path(scratch)), Path(scratch))


if __name__ == "__main__":
    main()
