"""Faithfulness of the attribution methods of `train.py explain`: deletion, insertion and randomization of the weights.

    python benchmarks/explain.py --checkpoint CHECKPOINT --root FOLDER [--images 200]

For each method, over images evenly spaced over the folder: the mean areas under the deletion and the insertion curve of
the predicted class; those of a random order; the share of images for which the map is more faithful than random; the
mean absolute correlation with the map of the same network with random weights (low is good); seconds per image.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from project.datamodules import ImageDataModule
from project.explain.attribution import METHODS, attribution, faithfulness, random_attribution
from project.modules import Classifier

BATCH_SIZE = 16


def load_images(root: Path, size: int, count: int) -> Tensor:
    """Return up to `count` images of a folder, uint8 (N, 3, size, size)."""
    data = ImageDataModule(root=str(root), image_size=size, on_corrupt="skip")
    data.setup("predict")
    return data.sample(count, "").inputs


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation of maps (N, H, W) for each image, float (N,); 0 if a map is constant."""
    pairs = torch.stack([first.flatten(1), second.flatten(1)], 1)
    return torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs]).nan_to_num()


def load(checkpoint: Path) -> Classifier:
    """Load a trained model, without test-time augmentation."""
    model = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    model.tta = "none"
    return model


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    model, randomized = load(args.checkpoint), load(args.checkpoint)
    torch.manual_seed(1)
    randomized.net = None
    randomized.configure_model()
    randomized.eval()
    assert model.data_description is not None
    images = load_images(args.root, model.data_description.image.height, args.images)
    net = type(model.net).__name__
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {net}, {len(images)} images of {args.root}")
    results: dict[str, list[list[Tensor]]] = {method: [] for method in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for number, part in enumerate(images.split(BATCH_SIZE)):
        with torch.no_grad():
            predicted = torch.tensor([outputs[0] for outputs in model.task.explained(model.predictions(part))])
        baseline = faithfulness(model, part, random_attribution(part, number), predicted)
        for method in METHODS:
            start = time.perf_counter()
            maps = attribution(model, part, predicted, method)
            seconds[method] += time.perf_counter() - start
            areas = faithfulness(model, part, maps, predicted)
            similarity = correlation(maps, attribution(randomized, part, predicted, method)).abs()
            results[method].append([areas[0], baseline[0], areas[1], baseline[1], similarity])
    print(f"\n{'':<22}{'deletion':>9}{'random':>8}{'better':>8}{'insertion':>11}{'random':>8}{'better':>8}", end="")
    print(f"{'random weights':>16}{'s per image':>13}")
    for method, parts in results.items():
        deletion, deletion0, insertion, insertion0, similarity = (torch.cat(x) for x in zip(*parts, strict=True))
        better = [float((deletion < deletion0).float().mean()), float((insertion > insertion0).float().mean())]
        print(
            f"{method:<22}{deletion.mean():>9.3f}{deletion0.mean():>8.3f}{better[0]:>8.0%}"
            f"{insertion.mean():>11.3f}{insertion0.mean():>8.3f}{better[1]:>8.0%}"
            f"{similarity.mean():>16.2f}{seconds[method] / len(images):>13.3f}"
        )


if __name__ == "__main__":
    main()
