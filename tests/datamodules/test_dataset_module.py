"""Any map-style dataset as training data: forms of samples and targets, seeds, resuming, other data."""

import csv
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from project.cli import main
from project.datamodules import DatasetModule, HuggingFace
from project.datamodules.loader import Loader
from project.datamodules.sampler import EpochBatchSampler, Request
from project.errors import UserError
from project.interface import ClassTarget
from tests.conftest import QUICK
from tests.runs import RUN, load, same_runs

HERE = "tests.datamodules.test_dataset_module"


class Blobs(Dataset[Any]):
    """Noise of two brightnesses; with `noisy`, drawn again whenever a sample is read, by three generators."""

    def __init__(self, size: int = 40, noisy: bool = False, side: int = 8) -> None:
        self.size, self.noisy, self.side, self.reads = size, noisy, side, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        self.reads += 1
        pixels = np.random.default_rng(row).integers(0, 100, (3, self.side, self.side)) + 100 * (row % 2)
        if self.noisy:
            pixels += int(torch.randint(9, ())) + np.random.randint(9) + random.randrange(9)
        return torch.from_numpy(pixels.astype(np.uint8)), row % 2


class Rows(list[Any]):
    """Samples in a list, and optionally the names of their classes."""

    classes: list[str] | None = None


def setup(stage: str = "fit", **options: Any) -> DatasetModule:
    data = DatasetModule(**options)
    data.setup(stage)
    return data


def pictures(count: int = 40) -> list[torch.Tensor]:
    return [Blobs()[row][0] for row in range(count)]


FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "tensor": lambda image: (image, 0),
    "PIL image": lambda image: (Image.fromarray(image.permute(1, 2, 0).numpy()), 0),
    "array": lambda image: (image.permute(1, 2, 0).numpy(), 0),
    "ToTensor": lambda image: (image / 255, 0),
    "dictionary": lambda image: {"pixel_values": image, "labels": 0},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_samples_give_the_same_pixels(form: str) -> None:
    samples = [FORMS[form](image) for image in pictures()]
    samples = [({**s, "labels": n % 2} if isinstance(s, dict) else (s[0], n % 2)) for n, s in enumerate(samples)]
    data = setup(train=samples, batch_size=4)
    assert data.split_sizes() == {"train": 28, "val": 6, "test": 6}
    batch = data.dataset("val")[Request(0, [0, 1])]
    assert data.description.image.is_8bit and batch.inputs.dtype == torch.uint8
    assert torch.equal(batch.inputs, torch.stack([pictures()[row] for row in batch.index.tolist()]))
    assert batch.target.tolist() == [row % 2 for row in batch.index.tolist()]


@pytest.mark.parametrize(
    ("target", "kind", "names"),
    [
        (lambda row: row % 2, "classes", ["0", "1"]),
        (lambda row: torch.tensor(row % 3), "classes", ["0", "1", "2"]),
        (lambda row: ["cat", "ant"][row % 2], "classes", ["ant", "cat"]),
        (lambda row: [row % 2, 1, row % 3 == 0, -1 if row == 5 else 0, row % 5 == 0], "multilabel", list("01234")),
        (lambda row: row / 7, "values", ["value"]),
        (lambda row: np.array([row, row / 7]), "values", ["0", "1"]),
    ],
)
def test_kinds_of_targets(target: Callable[[int], Any], kind: str, names: list[str]) -> None:
    samples = [(image, target(row)) for row, image in enumerate(pictures())]
    expected = [str(np.asarray(samples[row][1])) for row in (2, 3)]
    if kind == "multilabel":
        samples[0] = (samples[0][0], [1, 1, 1, 1, 1])
    data = setup(train=samples, split_seed=1)
    assert data.index is not None
    assert (data.index.kind, data.index.names) == (kind, names)
    if kind == "values":
        assert np.allclose(data.index.labels, [np.atleast_1d(target(row)) for row in range(40)])
    elif kind == "multilabel":
        assert np.isnan(data.index.labels).sum() == 1
    else:
        assert [data.index.label_text(row) for row in (2, 3)] == expected


def test_class_names_of_the_dataset_and_a_list_of_targets_that_is_wrong() -> None:
    samples = Rows(Blobs()[row] for row in range(40))
    samples.classes = ["dark", "N/A", "bright"]
    samples[:] = [(image, 2 * target) for image, target in samples]
    samples.targets = [0] * 40  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="1 of 3 classes have no sample and are left out, e.g. 'N/A'"):
        data = setup(train=samples)
    assert data.description.target == ClassTarget(["dark", "bright"], [14, 14])


def test_what_a_dataset_draws_depends_on_seed_epoch_and_sample_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    with pytest.warns(UserWarning, match="draws is random, and val and test, split off from it, are augmented too"):
        data = setup(train=Blobs(noisy=True), batch_size=8)

    def epoch(number: int, workers: int, split: Any = "train") -> torch.Tensor:
        images = data.dataset(split, augmented=split == "train")
        batches = EpochBatchSampler(len(images), 8, "sequential")
        batches.set_epoch(number)
        return torch.cat([batch.inputs for batch in Loader(images, batches, workers, False)])

    first = epoch(0, 0)
    assert torch.equal(first, epoch(0, 2)) and not torch.equal(first, epoch(1, 0))
    assert torch.equal(epoch(0, 0, "val"), epoch(1, 0, "val"))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    data.sample(3)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    assert not torch.equal(first, epoch(0, 0))


def test_packed_samples_are_read_once() -> None:
    train = Blobs()
    data = setup(train=train, pack=True)
    reads = train.reads
    assert torch.equal(data.sample(3).inputs, setup(train=Blobs()).sample(3).inputs)
    assert train.reads == reads and data.reading == "packed pixels"


def make(**options: Any) -> Callable[[], Any]:
    return lambda: setup(**options)


MISTAKES = {
    "no dataset: give --data.train CLASS_PATH": make(),
    "data.train: int is no map-style dataset": make(train=lambda: 7),
    "samples have several sizes, e.g. 4x4 and 8x8: give --data.image_size": make(train=Blobs(), val=Blobs(side=4)),
    "floats from -1 to 1: return uint8 or floats": make(train=[(torch.tensor([[[-1.0, 1.0]]]), 0)]),
    "the image of sample train/00000 is str": make(train=[("a.png", 0)]),
    "sample train/00000 has no target": make(train=[torch.zeros(1, 8, 8)] * 9),
    "has a target of type dict": make(train=[(torch.zeros(1, 8, 8), {"boxes": 1})] * 9),
    "of the same length for all samples": make(train=[(torch.zeros(1, 8, 8), [1, 0] + [1] * n) for n in range(9)]),
    "data.batch_size must be at least 1": make(train=Blobs(), batch_size=0),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_one_message(message: str) -> None:
    with pytest.raises(UserError) as stopped:
        MISTAKES[message]()
    assert message in str(stopped.value)


class CrashOnce(L.Callback):
    """Raise an error in the middle of the second epoch, once."""

    crashed = False

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 7 and not CrashOnce.crashed:
            CrashOnce.crashed = True
            raise RuntimeError("crash")


def train(epochs: int, *more: str) -> list[str]:
    used = [*QUICK[:4], *QUICK[-2:], "--data.batch_size", "8", "--last.every_n_steps", "2"]
    dataset = ["--data.train", f"{HERE}.Blobs", "--data.train.noisy", "true", "--test_after_fit", "false"]
    return ["fit", "--data", "DatasetModule", *dataset, *used, "--trainer.max_epochs", str(epochs), *more]


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, workers in ((one, "0"), (other, "2")):
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(CrashOnce, "crashed", folder == one)
        options = train(3, "--data.num_workers", workers, "--trainer.callbacks", f"{HERE}.CrashOnce")
        if folder == one:
            main(options)
        else:
            with pytest.raises(RuntimeError, match="crash"):
                main(options)
            assert load(RUN)["global_step"] == 6
            time.sleep(1)  # event files of one process and second are read in the order of their names
            main(["fit", "--ckpt_path", "last"])
    same_runs(one / RUN, other / RUN)


@pytest.mark.slow
def test_other_datasets_for_test_and_predict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(train(1, "--data.num_workers", "0"))
    output = capsys.readouterr().out
    assert "Blobs: 40 images, 2 classes; train 28  val 6  test 6" in output
    assert "--data ImageDataModule --data.root FOLDER_OR_IMAGE" in output
    saved = load(RUN, "best.ckpt")["datamodule_hyper_parameters"]
    assert saved["train"]["init_args"] == {"size": 40, "noisy": True, "side": 8}

    used = ["--ckpt_path", str(RUN / "checkpoints/best.ckpt"), *QUICK[:6]]
    main(["test", *used])
    assert "test: 6 images of the test split" in capsys.readouterr().out
    with Path("logs/test/version_0/test_predictions.csv").open(newline="") as stream:
        assert all(row["path"].startswith("train/000") for row in csv.DictReader(stream))
    main(["test", *used, "--data.test", f"{HERE}.Blobs", "--data.test.size", "10"])
    output = capsys.readouterr().out
    assert "Blobs: 10 images, not the data that the model was trained on: all are evaluated" in output
    main(["predict", *used, "--data.predict", f"{HERE}.Blobs", "--data.predict.size", "3"])
    assert "predict/00002: " in capsys.readouterr().out
    Image.new("RGB", (8, 8)).save("black.png")
    main(["predict", *used, "--data", "ImageDataModule", "--data.root", "black.png"])
    assert "black.png: 0 " in capsys.readouterr().out


class LoadedRows:
    """Stand-in for a `datasets.Dataset`: rows by number, columns by name."""

    column_names = ("img", "label")
    features = {"img": None, "label": SimpleNamespace(names=["dark", "bright"])}  # noqa: RUF012

    def __len__(self) -> int:
        return 40

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return [row % 2 for row in range(40)]
        return {"img": Image.fromarray(Blobs()[key][0].permute(1, 2, 0).numpy()), "label": key % 2}


def test_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    loader = SimpleNamespace(load_dataset=lambda *args, **options: calls.append((args, options)) or LoadedRows())
    monkeypatch.setitem(sys.modules, "datasets", loader)  # type: ignore[arg-type]
    data = setup(train=lambda: HuggingFace("imagefolder", data_dir="birds", image="img"))
    assert calls == [(("imagefolder", None), {"data_dir": "birds", "data_files": None, "split": "train"})]
    assert data.description.target == ClassTarget(["dark", "bright"], [14, 14])
    with pytest.raises(UserError, match="no column image: name those of img, label"):
        HuggingFace("imagefolder")


def test_without_the_extra_of_hugging_face(here: Path, failing: Callable[[list[str]], str]) -> None:
    if "datasets" not in sys.modules:
        options = ["--data.train", "project.datamodules.HuggingFace", "--data.train.path", "imagefolder"]
        assert "pip install -e '.[huggingface]'" in failing(["fit", "--data", "DatasetModule", *options, *QUICK[:6]])
