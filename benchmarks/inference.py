"""One trained model in every form: size, latency, images per second, accuracy, and whether the answers are the same.

    python benchmarks/inference.py --checkpoint CHECKPOINT --root DIR [--rounds 5] [--images 2000]

DIR holds train/ and test/, each with a folder a class. Every form is given decoded pixels, uint8, of the size that the
net sees, and gives probabilities, on the CPU. In each round each form answers 200 batches of one image and then, for
two seconds, batches of 64; the figures are the median round and, in brackets, the least and the greatest.
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
from project.datamodules.index import index_tree
from project.deploy.load import load_exported
from project.machine import default_precision
from project.modules import Classifier

Form = Callable[[Any], Any]


def forms(checkpoint: Path, root: Path, scratch: Path) -> dict[str, tuple[Form, Path]]:
    """What answers, by name, and the file that it needs."""
    model = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    twin = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    assert twin.net is not None
    twin.net.compile(dynamic=False)
    weights = scratch / "weights.pt"
    torch.save(model.state_dict(), weights)

    def eager(image: Any, using: Classifier = model, bf16: bool = False) -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return using.predictions(torch.from_numpy(image)).numpy()

    found: dict[str, tuple[Form, Path]] = {"eager, float32": (eager, weights)}
    if default_precision("cpu") == "bf16-mixed":
        found["eager, bfloat16"] = (lambda image: eager(image, bf16=True), weights)
    found["compiled, float32"] = (lambda image: eager(image, twin), weights)
    for name, options in {
        "pt2, float32": ["--format", "pt2", "--output", str(scratch / "model.pt2")],
        "onnx, float32": ["--output", str(scratch / "model.onnx")],
        "onnx, int8": ["--int8", "true", "--output", str(scratch / "int8.onnx")],
    }.items():
        command(["export", "--ckpt_path", str(checkpoint), "--data.root", str(root), *options])
        file = Path(options[-1])
        found[name] = (load_exported(file).probabilities, file)
    return found


def spread(values: list[float], digits: int) -> str:
    """Median, least and greatest."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def main() -> None:
    """Print the table."""
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
        pixels = decode_all(index, size, [], True, scratch / "packed").pixels
        rows = index.rows("test" if len(index.rows("test")) else "val")
        rows = rows[np.linspace(0, len(rows) - 1, min(args.images, len(rows))).round().astype(int)]
        image, label = np.ascontiguousarray(pixels[rows].transpose(0, 3, 1, 2)), index.labels[rows]
        candidates = forms(args.checkpoint, args.root, scratch)
        answers = {
            name: np.concatenate([form(part) for part in np.array_split(image, -(-len(image) // 64))])
            for name, (form, _) in candidates.items()
        }
        one: dict[str, list[list[float]]] = {name: [] for name in candidates}
        many: dict[str, list[float]] = {name: [] for name in candidates}
        load = os.getloadavg()[0]
        for number in range(args.rounds + 1):
            for name, (form, _) in candidates.items():
                times = []
                for at in range(200):
                    start = time.perf_counter()
                    form(image[at % len(image)][None])
                    times.append(1000 * (time.perf_counter() - start))
                start, count = time.perf_counter(), 0
                while (spent := time.perf_counter() - start) < 2:
                    form(image[:64])
                    count += len(image[:64])
                if number:  # the first round warms up
                    one[name].append(np.percentile(times, (50, 99)).tolist())
                    many[name].append(count / spent)
        print(
            f"\n{args.checkpoint}: {len(image):,} images of {size} pixels; torch {torch.__version__}, onnxruntime"
            f" {onnxruntime.__version__}, {torch.get_num_threads()} threads, load {load:.1f} before"
        )
        headings = ("MB", "p50 ms", "p99 ms", "images/s at 64", "accuracy", "largest difference", "same")
        print(f"{'':<20}{headings[0]:>7}" + "".join(f"{heading:>24}" for heading in headings[1:4]), end="")
        print("".join(f"{heading:>20}" for heading in headings[4:]))
        reference = answers["eager, float32"]
        for name, (_, file) in candidates.items():
            mine = answers[name].argmax(1)
            difference = np.abs(answers[name] - reference).max()
            p50, p99 = ([pair[which] for pair in one[name]] for which in (0, 1))
            print(f"{name:<20}{file.stat().st_size / 1e6:>7.1f}{spread(p50, 2):>24}{spread(p99, 2):>24}", end="")
            print(f"{spread(many[name], 0):>24}{(mine == label).mean():>20.2%}", end="")
            print(f"{difference:>20.1e}{(mine == reference.argmax(1)).mean():>20.2%}")


if __name__ == "__main__":
    main()
