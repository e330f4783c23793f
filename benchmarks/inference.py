"""Size, latency, throughput, accuracy and agreement of a checkpoint and its exported and quantized models on the CPU.

    python benchmarks/inference.py --checkpoint CHECKPOINT --root DIR [--rounds 5] [--images 2000]

DIR contains train/ and test/, each with one folder per class. All models map decoded images, uint8, of the network's
input size to probabilities. In each round, each model predicts 200 batches of one image and, for two seconds, batches
of 64; results are the median over the rounds, with minimum and maximum in parentheses.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from project.cli import main as command
from project.datamodules.images.packed import decode_all
from project.datamodules.tree import index_tree
from project.deploy.load import load_exported
from project.interface import ImageInput
from project.machine import default_precision
from project.modules import Classifier

Predictor = Callable[[Any], Any]


def load_predictors(checkpoint: Path, root: Path, scratch: Path) -> dict[str, tuple[Predictor, Path]]:
    """Return predictors and their files by name."""
    model = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    compiled = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    assert compiled.net is not None
    compiled.net.compile(dynamic=False)
    weights = scratch / "weights.pt"
    torch.save(model.state_dict(), weights)

    def eager(image: Any, classifier: Classifier = model, bf16: bool = False) -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return classifier.predictions(torch.from_numpy(image)).numpy()

    predictors: dict[str, tuple[Predictor, Path]] = {"eager, float32": (eager, weights)}
    if default_precision("cpu") == "bf16-mixed":
        predictors["eager, bfloat16"] = (lambda image: eager(image, bf16=True), weights)
    predictors["compiled, float32"] = (lambda image: eager(image, compiled), weights)
    for name, options in {
        "pt2, float32": ["--format", "pt2", "--output", str(scratch / "model.pt2")],
        "onnx, float32": ["--output", str(scratch / "model.onnx")],
        "onnx, int8": ["--int8", "true", "--output", str(scratch / "int8.onnx")],
    }.items():
        command(["export", "--ckpt_path", str(checkpoint), "--data.root", str(root), *options])
        file = Path(options[-1])
        predictors[name] = (load_exported(file).scores, file)
    return predictors


def spread(values: list[float], digits: int) -> str:
    """Format median, minimum and maximum."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        size = Classifier.load_from_checkpoint(args.checkpoint, map_location="cpu").data_description.image.height
        index = index_tree(args.root)
        pixels = decode_all(index, ImageInput(size, size), [], 1e12, scratch / "packed").pixels
        rows = index.rows("test" if len(index.rows("test")) else "val")
        rows = rows[np.linspace(0, len(rows) - 1, min(args.images, len(rows))).round().astype(int)]
        image, label = np.ascontiguousarray(pixels[rows].transpose(0, 3, 1, 2)), index.labels[rows]
        candidates = load_predictors(args.checkpoint, args.root, scratch)
        probabilities = {
            name: np.concatenate([predict(part) for part in np.array_split(image, -(-len(image) // 64))])
            for name, (predict, _) in candidates.items()
        }
        single: dict[str, list[list[float]]] = {name: [] for name in candidates}
        batched: dict[str, list[float]] = {name: [] for name in candidates}
        load = os.getloadavg()[0]
        for number in range(args.rounds + 1):
            for name, (predict, _) in candidates.items():
                times = []
                for at in range(200):
                    start = time.perf_counter()
                    predict(image[at % len(image)][None])
                    times.append(1000 * (time.perf_counter() - start))
                start, count = time.perf_counter(), 0
                while (elapsed := time.perf_counter() - start) < 2:
                    predict(image[:64])
                    count += len(image[:64])
                if number:  # the first round is a warm-up
                    single[name].append(np.percentile(times, (50, 99)).tolist())
                    batched[name].append(count / elapsed)
        print(
            f"\n{args.checkpoint}: {len(image):,} images of {size} pixels; torch {torch.__version__}, onnxruntime"
            f" {onnxruntime.__version__}, {torch.get_num_threads()} threads, load {load:.1f} before"
        )
        headings = ("MB", "p50 ms", "p99 ms", "images/s at 64", "accuracy", "max difference", "agreement")
        print(f"{'':<20}{headings[0]:>7}" + "".join(f"{heading:>24}" for heading in headings[1:4]), end="")
        print("".join(f"{heading:>20}" for heading in headings[4:]))
        reference = probabilities["eager, float32"]
        for name, (_, file) in candidates.items():
            predicted = probabilities[name].argmax(1)
            difference = np.abs(probabilities[name] - reference).max()
            p50, p99 = ([pair[which] for pair in single[name]] for which in (0, 1))
            print(f"{name:<20}{file.stat().st_size / 1e6:>7.1f}{spread(p50, 2):>24}{spread(p99, 2):>24}", end="")
            print(f"{spread(batched[name], 0):>24}{(predicted == label).mean():>20.2%}", end="")
            print(f"{difference:>20.1e}{(predicted == reference.argmax(1)).mean():>20.2%}")


if __name__ == "__main__":
    main()
