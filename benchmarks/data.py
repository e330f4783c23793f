"""Throughput of data loaders in images per second, on the same files, in one run.

    python benchmarks/data.py --small DIR --photos DIR

DIR holds DIR/CLASS/IMAGE. Small images (e.g. the train split of CIFAR-10) are loaded unchanged, photographs as random
resized crops of 224 pixels. Every loader returns shuffled batches of 128 images, uint8 or float. Libraries that are not
installed are skipped: pip install webdataset litdata ffcv nvidia-dali-cuda120.
"""

import argparse
import importlib.metadata
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from project.cli import main as command
from project.datamodules.images.dataset import Images
from project.datamodules.images.packed import decode_all
from project.datamodules.images.shards import ShardReader, read_shard_index
from project.datamodules.images.transforms import RandomResizedCrop
from project.datamodules.loader import Loader
from project.datamodules.sampler import EpochBatchSampler
from project.datamodules.tree import index_tree
from project.interface import ImageInput

BATCH = 128
CROP = 224
Epoch = Callable[[], Iterable[Any]]


def crop() -> list[torch.nn.Module]:
    """Return the item transforms of this project for photographs."""
    transform = RandomResizedCrop()
    transform.size = CROP, CROP
    return [transform]


def ours(images: Images, workers: int) -> Epoch:
    """Return the loader of this project, for plain files, packed images or shards."""
    loader = Loader(images, EpochBatchSampler(len(images), BATCH, "reshuffled each epoch"), workers, pin_memory=False)
    return lambda: loader


def image_folder(root: Path, photos: bool, workers: int) -> Epoch:
    """Return a DataLoader of torchvision's ImageFolder."""
    from torchvision import datasets, transforms

    steps = [transforms.RandomResizedCrop(CROP)] if photos else []
    dataset = datasets.ImageFolder(str(root), transforms.Compose([*steps, transforms.ToTensor()]))
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda: loader


def _tensor(image: Any, photos: bool) -> torch.Tensor:
    from torchvision import transforms

    image = image.convert("RGB")
    return transforms.functional.to_tensor(transforms.RandomResizedCrop(CROP)(image) if photos else image)


def _sample(sample: tuple[Any, int], photos: bool) -> tuple[torch.Tensor, int]:
    return _tensor(sample[0], photos), int(sample[1])


def webdataset(root: Path, photos: bool, workers: int, scratch: Path) -> Epoch:
    """Write the original files to tar shards and return a webdataset loader."""
    import webdataset as wds

    index = index_tree(root)
    with wds.ShardWriter(str(scratch / "wds-%04d.tar"), maxcount=-(-len(index.keys) // max(workers, 1))) as sink:
        for row in np.random.default_rng(0).permutation(len(index.keys)).tolist():
            path = index.root / index.keys[row]
            sink.write(
                {"__key__": f"{row:08d}", path.suffix[1:].lower(): path.read_bytes(), "cls": str(index.labels[row])}
            )
    tars = sorted(str(tar) for tar in scratch.glob("wds-*.tar"))
    dataset = wds.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode("pil")
    dataset = dataset.to_tuple("jpg;jpeg;png", "cls").map(partial(_sample, photos=photos)).batched(BATCH)
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    return lambda: loader


def _litdata_item(jpeg: Any, photos: bool) -> torch.Tensor:
    import io

    from PIL import Image

    return _tensor(Image.open(io.BytesIO(bytes(jpeg))), photos)


def litdata(shards: Path, photos: bool, workers: int) -> Epoch:
    """Return a litdata loader of the shards of this project."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(shards), shuffle=True, transform=partial(_litdata_item, photos=photos))
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda: loader


def ffcv(root: Path, photos: bool, workers: int, scratch: Path, short_side: int | None) -> Epoch:
    """Write an FFCV file of JPEGs, resized to a short side if given, and return an FFCV loader."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader as FFCVLoader
    from ffcv.loader import OrderOption
    from ffcv.writer import DatasetWriter
    from torchvision import datasets
    from torchvision.transforms.functional import resize

    file = scratch / f"ffcv-{short_side}.beton"
    dataset = datasets.ImageFolder(str(root), (lambda x: resize(x, short_side)) if short_side else None)
    field = RGBImageField(write_mode="jpg", jpeg_quality=90) if photos else RGBImageField()
    DatasetWriter(str(file), {"image": field, "label": IntField()}, num_workers=1).from_indexed_dataset(dataset)
    decoder = RandomResizedCropRGBImageDecoder((CROP, CROP)) if photos else SimpleRGBImageDecoder()
    loader = FFCVLoader(
        str(file),
        batch_size=BATCH,
        num_workers=max(workers, 1),
        order=OrderOption.RANDOM,
        pipelines={"image": [decoder], "label": [IntDecoder()]},
    )
    return lambda: loader


def dali(root: Path, workers: int) -> Epoch:
    """Return a DALI loader of the original files that runs on the CPU."""
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    @pipeline_def(batch_size=BATCH, num_threads=max(workers, 1), device_id=None)
    def pipeline() -> Any:
        data, label = fn.readers.file(file_root=str(root), random_shuffle=True, name="reader")
        image = fn.decoders.image_random_crop(data, device="cpu", random_area=[0.08, 1.0])
        return fn.resize(image, size=(CROP, CROP)), label

    loader = DALIGenericIterator([pipeline()], ["image", "label"], reader_name="reader", auto_reset=True)
    return lambda: loader


def loaders(root: Path, photos: bool, workers: int, scratch: Path) -> dict[str, Callable[[], Epoch]]:
    """Return functions, by name of the loader, that prepare the data and return an epoch."""
    index = index_tree(root)
    rows, steps = np.arange(len(index.keys)), crop() if photos else []
    inputs = ImageInput(CROP, CROP) if photos else ImageInput(32, 32)
    shards = scratch / "shards"

    def sharded() -> Epoch:
        command(["shard", str(root), str(shards), "--short_side", "256", "--on_corrupt", "skip"])
        shard_index = read_shard_index(str(shards), None)
        all_rows = np.arange(len(shard_index.keys))
        return ours(Images(shard_index, all_rows, inputs, steps, read=ShardReader(str(shards))), workers)

    def packed() -> Epoch:
        pixels = decode_all(index, inputs, [], 1e12, scratch / "packed").pixels
        return ours(Images(index, rows, inputs, pixels=pixels), 0)

    factories: dict[str, Callable[[], Epoch]] = {
        "ours, plain files": lambda: ours(Images(index, rows, inputs, steps), workers)
    }
    if not photos:
        factories["ours, packed"] = packed
    factories["ours, shards"] = sharded
    factories["ImageFolder + DataLoader"] = lambda: image_folder(root, photos, workers)
    factories["webdataset"] = lambda: webdataset(root, photos, workers, scratch)
    factories["litdata's loader on our shards"] = lambda: litdata(shards, photos, workers)
    factories["FFCV, original JPEGs"] = lambda: ffcv(root, photos, workers, scratch, None)
    if photos:
        factories["FFCV, short side 256"] = lambda: ffcv(root, photos, workers, scratch, 256)
        factories["DALI on the CPU, original JPEGs"] = lambda: dali(root, workers)
    return factories


def count(batch: Any) -> int:
    """Return the number of images in a batch of any loader."""
    while not hasattr(batch, "shape"):
        batch = batch["image"] if isinstance(batch, dict) else batch[0]
    return int(batch.shape[0])


def measure(epoch: Epoch, min_seconds: float) -> float:
    """Return images per second over whole epochs, for at least `min_seconds`."""
    images, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < min_seconds:
        images += sum(count(batch) for batch in epoch())
    return images / seconds


def compare(root: Path, photos: bool, workers: int, repeats: int) -> None:
    """Measure all loaders on one dataset and print a table."""
    kind = f"photographs, random resized crop to {CROP}" if photos else "small images"
    print(f"\n{kind}: {root}, {len(index_tree(root).paths):,} files, {workers} workers, {repeats} rounds")
    with tempfile.TemporaryDirectory() as scratch:
        epochs: dict[str, Epoch] = {}
        for name, prepare in loaders(root, photos, workers, Path(scratch)).items():
            try:
                epochs[name] = prepare()
                measure(epochs[name], 0.1)  # warm-up
            except ImportError as error:
                epochs.pop(name, None)
                print(f"  skipped: {name} ({error})")
        rates: dict[str, list[float]] = {name: [] for name in epochs}
        for _ in range(repeats):
            for name, epoch in epochs.items():
                rates[name].append(measure(epoch, 2.0))
    baseline = statistics.median(rates["ImageFolder + DataLoader"])
    print(f"  {'':<32}{'images/s':>10}{'range':>18}{'x ImageFolder':>15}")
    for name, values in sorted(rates.items(), key=lambda item: -statistics.median(item[1])):
        middle, spread = statistics.median(values), f"{min(values):,.0f}-{max(values):,.0f}"
        print(f"  {name:<32}{middle:>10,.0f}{spread:>18}{middle / baseline:>15.2f}")


def main() -> None:
    """Print one table for small images and one for photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path, help="directory of 32x32 images")
    parser.add_argument("--photos", type=Path, help="directory of photographs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = ("torch", "torchvision", "pillow", "webdataset", "litdata", "ffcv", "nvidia-dali-cuda120")
    installed = [name for name in names if any(importlib.metadata.distributions(name=name))]
    print(
        f"python {sys.version.split()[0]}",
        *(f"{name} {importlib.metadata.version(name)}" for name in installed),
        sep=", ",
    )
    for root, photos in ((args.small, False), (args.photos, True)):
        if root:
            compare(root, photos, args.workers, args.repeats)


if __name__ == "__main__":
    main()
