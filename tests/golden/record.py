"""Record the exact results of the commands and compare them with another commit.

    python tests/golden/record.py OUT.json                  record this tree
    python tests/golden/record.py OUT.json --tree DIR       record another checkout, e.g. a git worktree
    python tests/golden/record.py OUT.json --against OLD.json    record and compare

Runs in float32 with one thread on the CPU. Records losses per step, final weights, tables and predictions of exported
models. Results are comparable only on one machine with the same package versions, so none are in the repository. Takes
about three minutes.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parents[2]
QUICK = [
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--data.num_workers", "0"),
    *("--trainer.callbacks+", "golden.hooks.StepLosses"),
]
USED = QUICK[:4]
RUN = Path("logs/golden/version_0")


def make_images(root: Path) -> None:
    """Write 40 noise images per class for three classes; some resemble the next class, so that there are errors."""
    noise = np.random.default_rng(0)
    for number in range(120):
        folder = root / ("ant", "bee", "wasp")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 150, (40, 36, 3), dtype=np.uint8)
        pixels[..., (number + (number % 4 == 0)) % 3] += 60
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


class Recorder:
    """Runs commands of a checkout in separate folders and records their results.

    Args:
        tree: The checkout.
        scratch: Parent of the folders.
    """

    def __init__(self, tree: Path, scratch: Path) -> None:
        self.tree, self.scratch, self.images = tree, scratch, scratch / "images"
        make_images(self.images)
        self.records: dict[str, Any] = {}

    def run(self, case: str, args: list[str], fails: bool = False, fixed_entropy: bool = False) -> str:
        """Run a command of train.py, or of `python -m project` if it has no Trainer; return its output."""
        folder = self.scratch / case
        folder.mkdir(exist_ok=True)
        path = os.pathsep.join([str(self.tree / "src"), str(HERE / "tests")])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        train = [str(self.tree / "train.py")]
        start = ["-m", "project"] if args[0] in ("groups", "predict_exported") else train
        start = [str(HERE / "tests/golden/fixed_entropy.py"), *train] if fixed_entropy else start
        done = subprocess.run(
            [sys.executable, *start, *args], cwd=folder, env=environment, capture_output=True, text=True
        )
        if bool(done.returncode) != fails:
            raise SystemExit(f"{case}: {' '.join(args)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def note_run(self, case: str) -> None:
        """Record the losses, the metrics and the final weights and optimizer state."""
        folder = self.scratch / case
        saved = torch.load(folder / RUN / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)
        self.records[f"{case}: losses"] = {file.name: file.read_text() for file in sorted(folder.glob("losses_*.txt"))}
        weights = {name: value for name, value in saved["state_dict"].items() if name.startswith("net.")}
        self.records[f"{case}: weights"] = digest(weights)
        self.records[f"{case}: optimizer"] = digest(saved["optimizer_states"])
        metrics = list(csv.DictReader((folder / RUN / "metrics.csv").open(newline="")))
        timing = "train/images_per_second"
        self.records[f"{case}: metrics"] = [{k: v for k, v in row.items() if k != timing and v} for row in metrics]

    def note_table(self, name: str, file: Path, key: Callable[[str], str] = str) -> None:
        """Record the rows of a table."""
        text = key((self.scratch / file).read_text(encoding="utf-8"))
        self.records[name] = text.splitlines()

    def record(self) -> dict[str, Any]:
        """Run all commands and return the records."""
        root, name = ["--data.root", str(self.images)], ["--run_name", "golden"]
        configs = self.tree / "configs"
        self.run("convnet", ["fit", "--config", f"{configs}/convnet.yaml", *name, *QUICK, "--trainer.max_epochs", "2"])
        self.note_run("convnet")
        small = ["--trainer.max_epochs", "3", "--data.batch_size", "16", "--trainer.log_every_n_steps", "1"]
        cifar10 = ["fit", "--config", f"{configs}/cifar10.yaml", *name, *root, *QUICK, *small]
        self.run("cifar10", cifar10)
        self.note_run("cifar10")
        self.run("two", [*cifar10, "--trainer.devices", "2"])
        self.note_run("two")
        kill = ["--trainer.callbacks+", "golden.hooks.KillOnce", "--trainer.callbacks.step", "8"]
        self.run("killed", [*cifar10, *kill, "--last.every_n_steps", "3"], fails=True)
        self.run("killed", ["fit", "--ckpt_path", "last"])
        self.note_run("killed")
        private = ["fit", "--config", f"{configs}/private.yaml", *name, *QUICK, "--trainer.max_epochs", "2"]
        self.run("private", private, fixed_entropy=True)
        self.note_run("private")

        case = "cifar10"
        best = str(RUN / "checkpoints/best.ckpt")
        trained = ["--ckpt_path", best, *USED]
        self.note_table("after fit: test", Path(case) / RUN / "test_predictions.csv")
        self.run(case, ["test", *trained])
        self.note_table("test", Path(case) / "logs/test/version_0/test_predictions.csv")
        self.run(case, ["predict", *trained, *root])
        self.note_table("predict", Path(case) / "logs/predict/version_0/predictions.csv")
        self.run(case, ["groups", str(RUN), "--folder_level", "0"])
        for table in ("groups", "gaps"):
            self.note_table(table, Path(case) / RUN / f"{table}.csv")
        self.run(case, ["robustness", *trained, "--images", "12"])
        self.note_table(
            "robustness", Path(case) / RUN / "robustness.csv", lambda text: text.replace(str(self.images), "")
        )
        self.run(case, ["export", *trained, "--output", "model.onnx"])
        self.run(case, ["predict_exported", "model.onnx", str(self.images), "--output", "exported.csv"])
        self.note_table("exported", Path(case) / "exported.csv")
        shown = self.run(case, ["calibrate", *trained])
        figures = [
            line.split()[:1] + line.split()[1:] for line in shown.splitlines() if line.startswith(("val ", "test "))
        ]
        self.records["calibrate"] = [" ".join(line) for line in figures]
        self.run(case, ["predict", *trained, *root])
        self.note_table("calibrated: predict", Path(case) / "logs/predict/version_1/predictions.csv")
        return self.records


def digest(value: Any) -> Any:
    """Replace every tensor in nested values by its shape and a hash of its bytes."""
    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous().cpu()
        return (
            f"{list(data.shape)} {hashlib.sha256(data.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:16]}"
        )
    if isinstance(value, dict):
        return {str(key): digest(each) for key, each in value.items()}
    return [digest(each) for each in value] if isinstance(value, list | tuple) else str(value)


def main() -> None:
    """Record, and with `--against` compare; exit with 1 on differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tree", type=Path, default=HERE)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        records = Recorder(options.tree.resolve(), Path(scratch)).record()
    options.out.write_text(json.dumps(records, indent=1))
    if options.against:
        before = json.loads(options.against.read_text())
        differing = [name for name in before | records if before.get(name) != records.get(name)]
        print("\n".join(f"differs: {name}" for name in differing) or f"all {len(records)} records are the same")
        raise SystemExit(1 if differing else 0)


if __name__ == "__main__":
    main()
