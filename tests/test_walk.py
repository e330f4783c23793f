"""Run the commands of the README and of the pages that it links to, in order."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.cli import main
from tests.commands import REPOSITORY, DocumentedCommand, fill_placeholders, find_commands

PAGES = ("README.md", *(f"docs/{name}.md" for name in ("deploy", "security", "trust", "report")))
TUTORIALS = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs" / "tutorials").glob("*.md"))

SKIPPED = {
    "make ": "run by CI",
    "pip ": "needs a package index",
    "source ": "changes the shell",
    "openssl ": "not installed everywhere; the key is created in Python",
    "train.py fit --help": "test_cli.py",
    "train.py report RUN RUN RUN": "needs three runs; two are compared",
    "train.py report logs/convnet/version_0 logs/tiny": "its run is not trained here, see below",
    "train.py report logs/transfer": "its run is not trained here, see below",
    "train.py serve": "does not end; tests/serve",
    "train.py fit --config configs/transfer.yaml": "needs weights; test_pretrained.py",
    "train.py fit --config configs/convnet.yaml --config configs/trainer/ddp": "two processes; test_launch.py",
    "scripts/remove_packages.py": "deletes files; test_packages.py",
    "sbatch ": "needs SLURM; test_scripts.py",
    "scripts/": "several processes; test_launch.py",
    "NAME=": "several processes; test_launch.py",
    "train.py fit --config configs/convnet.yaml --config configs/debug/fast_run": "needs a new file in src/",
    "train.py fit --config configs/convnet.yaml --config configs/tiny": "needs a new file in src/",
}
"""Prefixes of commands that are not run here, and why; test_docs.py parses them nevertheless."""

TEXTS = ("configs/text", "--text ", "--table new.csv", "train.py alerts")
"""In commands on texts; tests/texts and tests/alerts run them."""

FIT = [
    "--trainer.max_epochs",
    "1",
    "--trainer.accelerator",
    "cpu",
    "--data.num_workers",
    "0",
    "--data.batch_size",
    "16",
]
PHOTOS = ["--data.root", "photos"]
EXTRA_OPTIONS = {
    "fit": [*PHOTOS, *FIT],
    "fit --ckpt_path last": ["--trainer.max_epochs", "4"],
    "find_lr": [*PHOTOS, *FIT[2:], "--steps", "20"],
    "find_batch_size": [*PHOTOS, *FIT[2:], "--min_batch_size", "4"],
    "explain": ["--images", "2"],
    "robustness": ["--images", "4"],
    "groups": ["--table", "groups.csv"],
    "sweep": ["--trials", "1", "--", *PHOTOS, *FIT],
    "cross_validate": ["--folds", "2", "--", *PHOTOS, *FIT],
    "prune": ["--ckpt_path", "logs/convnet/version_0/checkpoints/best.ckpt"],  # the run whose config is used next
}
"""Options that shorten a command, by its prefix; the longest matching prefix applies."""


@pytest.fixture
def workspace(here: Path) -> Path:
    """A folder with configs, scripts and images, every fifth with a wrong color so that some are misclassified."""
    for name in ("configs", "scripts"):
        shutil.copytree(REPOSITORY / name, name)
    noise = np.random.default_rng(0)
    for number in range(120):
        folder = Path("photos", ("ant", "bee", "wasp")[number % 3])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 120, (5, 6, 3), dtype=np.uint8)
        pixels[..., (number + (number % 5 == 0)) % 3] += 120
        Image.fromarray(pixels).resize((72, 60)).save(folder / f"{number:03d}.jpg")
    Path("F").write_text(os.urandom(32).hex())
    return here


def provide(run: Path) -> None:
    """Create the files that the pages expect once there is a run."""
    table = run / "test_predictions.csv"
    if table.is_file() and not Path("groups.csv").exists():
        with table.open(newline="") as stream, Path("groups.csv").open("w", newline="") as out:
            write = csv.writer(out).writerow
            write(["path", "skin_type", "sex", "camera"])
            for number, row in enumerate(csv.DictReader(stream)):
                write([row["path"], number % 3, number % 2, "AB"[number % 2]])
    for expected in (Path("best.ckpt"), Path("model.onnx"), run / "model.onnx", run / "pruned.yaml"):
        existing = next(Path("logs").rglob(expected.name), None)
        if existing and not expected.exists():
            shutil.copy(existing, expected)


def arguments(command: DocumentedCommand, key: str) -> list[str]:
    """Return the arguments of a command with placeholders replaced and options that shorten it."""
    words = fill_placeholders(command.text)
    if "predict_exported" in words:
        words = ["model.onnx" if word == "best.ckpt" else word for word in words]
    plain = " ".join(words[words.index("train.py" if "train.py" in words else key) + ("train.py" in words) :])
    more = EXTRA_OPTIONS.get(
        max((known for known in EXTRA_OPTIONS if plain.startswith(known)), key=len, default=""), []
    )
    if "--" in words and "--" in more:
        at, cut = words.index("--"), more.index("--")
        return [*words[:at], *more[:cut], *words[at:], *more[cut + 1 :]]
    return [*words, *more]


@pytest.mark.slow
def test_documented_commands_work_one_after_another(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJECT_KEY", Path("F").read_text())
    run, done = Path("logs/convnet/version_0"), set()
    for page in (*PAGES, *TUTORIALS):
        for command in find_commands(REPOSITORY / page):
            text = command.text.removeprefix("python ")
            mentioned = text.startswith("--") or len(text.split()) < 3  # without required arguments
            if mentioned or (page != "README.md" and not command.block) or text.startswith(tuple(SKIPPED)):
                continue
            if any(words in text for words in TEXTS):
                continue
            name = command.text.split("-m project ")[-1].split()[0]
            words = arguments(command, name)
            if (key := " ".join(words)) in done:
                continue
            done.add(key)
            provide(run)
            try:
                main(words[words.index("train.py" if "train.py" in words else name) + ("train.py" in words) :])
            except SystemExit as end:
                assert not end.code, f"{command.location}: {command.text}\n    run as: {key}\n    exit code {end.code}"
    assert {"predictions.csv", "best.ckpt.enc", "again.ckpt"} <= {path.name for path in workspace.iterdir()}
    assert len(done) > 25
