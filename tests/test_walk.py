"""A stranger's way: the README from its first command to its last, and pages that lead on, typed as they stand."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.cli import main
from tests.commands import REPOSITORY, Shown, shown, standing_in

PAGES = ("README.md", *(f"docs/{name}.md" for name in ("deploy", "security", "trust", "report")))
TUTORIALS = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs" / "tutorials").glob("*.md"))

NOT_HERE = {
    "make ": "what CI and every other test begin with",
    "pip ": "needs a package index",
    "source ": "changes the shell",
    "openssl ": "done in Python, as not every machine has it",
    "train.py fit --help": "test_cli.py",
    "train.py report RUN RUN RUN": "three runs; two are compared",
    "train.py report logs/convnet/version_0 logs/tiny": "no such run, for what stands below",
    "train.py report logs/transfer": "no such run, for what stands below",
    "train.py serve": "does not end; it has a test of its own",
    "train.py fit --config configs/transfer.yaml": "needs weights; test_pretrained.py",
    "train.py fit --config configs/convnet.yaml --config configs/trainer/ddp": "two processes; test_launch.py",
    "scripts/take_out.py": "deletes; test_packages.py",
    "sbatch ": "no SLURM here; test_scripts.py",
    "scripts/": "several processes; test_launch.py",
    "NAME=": "several processes; test_launch.py",
    "train.py fit --config configs/convnet.yaml --config configs/debug/fast_run": "a new file in src/",
    "train.py fit --config configs/convnet.yaml --config configs/tiny": "a new file in src/",
}
"""Commands that are not run here, by their beginning, and why; test_docs.py looks at them all the same."""

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
SHORTER = {
    "fit": [*PHOTOS, *FIT],
    "fit --ckpt_path last": ["--trainer.max_epochs", "4"],
    "find_lr": [*PHOTOS, *FIT[2:], "--steps", "20"],
    "find_batch_size": [*PHOTOS, *FIT[2:], "--smallest", "4"],
    "explain": ["--images", "2"],
    "robustness": ["--images", "4"],
    "groups": ["--table", "groups.csv"],
    "sweep": ["--trials", "1", "--", *PHOTOS, *FIT],
    "cross_validate": ["--folds", "2", "--", *PHOTOS, *FIT],
}
"""What is added to make a command short, by its beginning; the longest that fits counts."""


@pytest.fixture
def stranger(here: Path) -> Path:
    """The configs, and photographs told by color, every fifth of which has another's: a model has mistakes to show."""
    for name in ("configs", "scripts"):
        shutil.copytree(REPOSITORY / name, name)
    noise = np.random.default_rng(0)
    for number in range(120):
        place = Path("photos", ("ant", "bee", "wasp")[number % 3])
        place.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 120, (5, 6, 3), dtype=np.uint8)
        pixels[..., (number + (number % 5 == 0)) % 3] += 120
        Image.fromarray(pixels).resize((72, 60)).save(place / f"{number:03d}.jpg")
    Path("F").write_text(os.urandom(32).hex())
    return here


def provide(run: Path) -> None:
    """Files that the pages take to be there once there is a run."""
    table = run / "test_predictions.csv"
    if table.is_file() and not Path("groups.csv").exists():
        with table.open(newline="") as stream, Path("groups.csv").open("w", newline="") as out:
            write = csv.writer(out).writerow
            write(["path", "skin_type", "sex", "camera"])
            for number, row in enumerate(csv.DictReader(stream)):
                write([row["path"], number % 3, number % 2, "AB"[number % 2]])
    for wanted in (Path("best.ckpt"), Path("model.onnx"), run / "model.onnx", run / "pruned.yaml"):
        made = next(Path("logs").rglob(wanted.name), None)
        if made and not wanted.exists():
            shutil.copy(made, wanted)


def typed(command: Shown, key: str) -> list[str]:
    """The words of a command with what stands in for its DIR and the like, made short."""
    words = standing_in(command.text)
    if "predict_exported" in words:
        words = ["model.onnx" if word == "best.ckpt" else word for word in words]
    plain = " ".join(words[words.index("train.py" if "train.py" in words else key) + ("train.py" in words) :])
    more = SHORTER.get(max((known for known in SHORTER if plain.startswith(known)), key=len, default=""), [])
    if "--" in words and "--" in more:
        at, cut = words.index("--"), more.index("--")
        return [*words[:at], *more[:cut], *words[at:], *more[cut + 1 :]]
    return [*words, *more]


@pytest.mark.slow
def test_the_commands_work_as_typed_one_after_another(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJECT_KEY", Path("F").read_text())
    run, done = Path("logs/convnet/version_0"), set()
    for page in (*PAGES, *TUTORIALS):
        for command in shown(REPOSITORY / page):
            text = command.text.removeprefix("python ")
            named = text.startswith("--") or len(text.split()) < 3  # in passing, without what it takes
            if named or (page != "README.md" and not command.block) or text.startswith(tuple(NOT_HERE)):
                continue
            name = command.text.split("-m project ")[-1].split()[0]
            words = typed(command, name)
            if (key := " ".join(words)) in done:
                continue
            done.add(key)
            provide(run)
            try:
                main(words[words.index("train.py" if "train.py" in words else name) + ("train.py" in words) :])
            except SystemExit as end:
                assert not end.code, f"{command.place}: {command.text}\n    typed as: {key}\n    exit code {end.code}"
    assert {"predictions.csv", "best.ckpt.enc", "again.ckpt"} <= {path.name for path in stranger.iterdir()}
    assert len(done) > 25
