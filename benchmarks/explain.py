"""How true the maps of `train.py explain` are to a trained net: deletion, insertion, and what random weights change.

    python benchmarks/explain.py --checkpoint CHECKPOINT --root FOLDER [--images 200]

For each method: the mean areas below the deletion and the insertion curve of the predicted class over images evenly
spread over the folder; the same for a random order; the share of images for which the map does better than it; how the
map correlates (without sign) with that of the same net with random weights, low where a map explains the net; seconds.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from project.datamodules import ImageDataModule
from project.explain.attribution import METHODS, attribution, faithfulness, random_attribution
from project.modules import Classifier

CHUNK = 16


def images_of(root: Path, size: int, count: int) -> Tensor:
    """Up to `count` images of a folder, uint8 (N, 3, size, size)."""
    data = ImageDataModule(root=str(root), image_size=size, on_corrupt="skip")
    data.setup("predict")
    return data.sample(count, "").inputs


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of maps (N, H, W), image by image, float (N,); 0 where a map is flat."""
    pairs = torch.stack([one.flatten(1), other.flatten(1)], 1)
    return torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs]).nan_to_num()


def load(checkpoint: Path) -> Classifier:
    """A trained classifier that sees each image once."""
    model = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    model.tta = "none"
    return model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    model, twin = load(args.checkpoint), load(args.checkpoint)
    torch.manual_seed(1)
    twin.net = None
    twin.configure_model()
    twin.eval()
    assert model.data_description is not None
    images = images_of(args.root, model.data_description.image.height, args.images)
    net = type(model.net).__name__
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {net}, {len(images)} images of {args.root}")
    found: dict[str, list[list[Tensor]]] = {method: [] for method in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for number, part in enumerate(images.split(CHUNK)):
        with torch.no_grad():
            predicted = model(part).argmax(1)
        by_chance = faithfulness(model, part, random_attribution(part, number), predicted)
        for method in METHODS:
            start = time.perf_counter()
            maps = attribution(model, part, predicted, method)
            seconds[method] += time.perf_counter() - start
            areas = faithfulness(model, part, maps, predicted)
            alike = correlation(maps, attribution(twin, part, predicted, method)).abs()
            found[method].append([areas[0], by_chance[0], areas[1], by_chance[1], alike])
    print(f"\n{'':<22}{'deletion':>9}{'random':>8}{'better':>8}{'insertion':>11}{'random':>8}{'better':>8}", end="")
    print(f"{'random weights':>16}{'s an image':>12}")
    for method, parts in found.items():
        deletion, deletion0, insertion, insertion0, alike = (torch.cat(values) for values in zip(*parts, strict=True))
        better = [float((deletion < deletion0).float().mean()), float((insertion > insertion0).float().mean())]
        print(
            f"{method:<22}{deletion.mean():>9.3f}{deletion0.mean():>8.3f}{better[0]:>8.0%}"
            f"{insertion.mean():>11.3f}{insertion0.mean():>8.3f}{better[1]:>8.0%}"
            f"{alike.mean():>16.2f}{seconds[method] / len(images):>12.3f}"
        )


if __name__ == "__main__":
    main()
