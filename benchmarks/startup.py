"""Start-up time of `train.py` compared with a minimal LightningCLI.

    python benchmarks/startup.py [--repeats 5]

Measures CPU seconds (user and system) of whole processes, in turn: imports, `fit --help`, and `fit` up to the first
training batch. The minimal LightningCLI trains a linear layer on random data, `train.py` the ConvNet on the digits,
which are packed beforehand. On an idle machine wall-clock time is about the same.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "train.py"
CONFIG = Path(__file__).parents[1] / "configs" / "convnet.yaml"
BARE = """
import lightning.pytorch as L, torch
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset

class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)
    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

class Data(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(64, 8), torch.zeros(64, dtype=torch.long)), 16)

LightningCLI(Model, Data, save_config_callback=None)
"""


STOP = """
import os
from lightning.pytorch.callbacks import Callback

class Stop(Callback):
    def on_train_batch_start(self, *_):
        os._exit(0)
"""


def seconds(command: list[str], folder: Path) -> float:
    """Return the CPU time of a Python process and its children."""
    before, environment = os.times(), {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    options = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    options += ["--trainer.callbacks+", "stop.Stop"]
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch) / "bare.py"
        bare.write_text(BARE)
        (Path(scratch) / "stop.py").write_text(STOP)
        train = [str(TRAIN), "fit", "--config", str(CONFIG), *options]
        commands = {
            "import lightning.pytorch.cli": ["-c", "import lightning.pytorch.cli"],
            "import project.cli.training": ["-c", "import project.cli.training"],
            "minimal LightningCLI, fit --help": [str(bare), "fit", "--help"],
            "train.py fit --help": [str(TRAIN), "fit", "--help"],
            "minimal LightningCLI, first batch": [str(bare), "fit", *options],
            "train.py fit, first batch": train,
        }
        seconds(train, Path(scratch))  # writes and packs the digits
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, command in commands.items():
                times[name].append(seconds(command, Path(scratch)))
    print(f"{'CPU seconds':<40}{'median':>8}{'range':>14}")
    for name, values in times.items():
        print(f"{name:<40}{statistics.median(values):>8.2f}{f'{min(values):.2f}-{max(values):.2f}':>14}")


if __name__ == "__main__":
    main()
