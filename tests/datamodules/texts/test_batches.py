"""Order of batches, augmentation, exact resume and several processes."""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from project.datamodules.sampler import WINDOW, EpochBatchSampler, Request
from project.datamodules.texts import CharacterDropout, WordDropout, WordSwap
from project.datamodules.texts.augment import TextTransform
from tests.datamodules.texts.made import FIT, reviews, set_up, write
from tests.runs import RUN, delayed, finish, is_rewritten, kill, resume, same_runs, start

EXACT = ["--last.every_n_steps", "3", "--test_after_fit", "false", "--trainer.max_epochs", "3"]
AUGMENTED = ["--data.item_transforms+", "project.datamodules.texts.WordDropout", "--data.item_transforms.p", "0.3"]


@pytest.mark.parametrize("size", [1, 9, 64, 65, 8 * WINDOW, 8 * WINDOW + 3, 20 * WINDOW])
def test_batches_of_like_length(size: int) -> None:
    lengths = np.random.default_rng(1).integers(1, 1000, size)

    def epoch(number: int, world: int = 1) -> list[list[int]]:
        args = [(size, 8, "reshuffled each epoch", 5, rank, world, None, lengths) for rank in range(world)]
        ranks = [EpochBatchSampler(*each) for each in args]
        for rank in ranks:
            rank.set_epoch(number)
        assert len({len(rank) for rank in ranks}) == 1
        return [[*chain(*(request.positions for request in step))] for step in zip(*ranks, strict=True)]

    batches, later = epoch(0), epoch(1)
    assert sorted(chain(*batches)) == sorted(chain(*later)) == list(range(size)), "each sample once"
    assert batches == epoch(0)
    if len(batches) > 1:
        assert {frozenset(batch) for batch in batches} != {frozenset(batch) for batch in later}
    if size > 1:
        assert epoch(0, 2) == batches and epoch(3, 2) == epoch(3), "two processes take the batches of one"
    assert all(len(batch) == 8 for batch in batches[:-1])
    if size >= 8 * WINDOW:
        means = [lengths[batch].mean() for batch in batches[:-1]]
        assert np.mean([np.ptp(lengths[batch]) for batch in batches[:-1]]) < 150, "about 800 in a random order"
        assert means != sorted(means)


def test_an_epoch_is_resumed_within_it() -> None:
    lengths = np.arange(50)
    whole = [request.positions for request in EpochBatchSampler(50, 8, "reshuffled each epoch", 1, lengths=lengths)]
    rest = EpochBatchSampler(50, 8, "reshuffled each epoch", 1, lengths=lengths)
    rest.start = 4
    assert [request.positions for request in rest] == whole[4:]


@pytest.mark.parametrize("transform", [WordDropout(0.3), WordSwap(0.3), CharacterDropout(0.3)])
def test_augmentation_is_a_function_of_seed_epoch_and_row(transform: TextTransform, tmp_path: Path) -> None:
    chinese = [
        ("\u623f\u95f4\u5f88\u5927\U00020bb7word,\u65e9\u9910\u4e0d\u9519" + str(number), "pos") for number in range(9)
    ]
    datamodule = set_up(write(tmp_path / "t.csv", [*reviews(40), *chinese]), item_transforms=[transform])
    dataset = datamodule.dataset("train", augmented=True)
    positions = list(range(len(dataset)))

    def texts(epoch: int, order: list[int]) -> list[str]:
        batch = dataset[Request(epoch, order)]
        return [datamodule.input.render(row) for row in batch.inputs.numpy()]

    first = texts(0, positions)
    assert first == texts(0, positions[::-1])[::-1], "whatever the batch"
    plain = [datamodule.path(int(dataset.rows[position])) for position in positions]
    changed = np.mean([one != other for one, other in zip(first, plain, strict=True)])
    again = np.mean([one != other for one, other in zip(first, texts(1, positions), strict=True)])
    assert changed > 0.7 and again > 0.7
    dataset.seed = 1
    assert texts(0, positions) != first
    clean = datamodule.dataset("val")
    assert [datamodule.input.render(row) for row in clean[Request(0, [0, 1])].inputs.numpy()] == [
        datamodule.path(int(row)) for row in clean.rows[:2]
    ]


@pytest.mark.parametrize("transform", [WordDropout(0.9), WordSwap(1), CharacterDropout(0.9), CharacterDropout(1)])
def test_augmented_texts_are_never_empty(transform: TextTransform) -> None:
    rng = np.random.default_rng(0)
    for text in ("a", "a b", "\u597d", "\u597d \u597d", "! ?", "e\u0301 o", "one two three"):
        for _ in range(200):
            assert transform.change(text, rng).strip()
    if isinstance(transform, WordSwap):
        assert sorted(transform.change("one two three four", rng).split()) == ["four", "one", "three", "two"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "t.csv", reviews(150))


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(table: Path, tmp_path: Path) -> None:
    """With augmentation, also with another number of workers."""
    args = [*FIT, "--data.table", str(table), *EXACT, *AUGMENTED, "--trainer.devices", "1"]
    (tmp_path / "one").mkdir()
    (tmp_path / "killed").mkdir()
    finish([*args, "--data.num_workers", "0"], tmp_path / "one")
    process = start([*args, "--data.num_workers", "2"], tmp_path / "killed")
    saved = is_rewritten(tmp_path / "killed" / RUN / "checkpoints" / "last.ckpt", times=2)
    assert kill(process, delayed(saved, 0.05)) is not None, "finished before it could be killed"
    resume(tmp_path / "killed")
    same_runs(tmp_path / "one" / RUN, tmp_path / "killed" / RUN)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_train_like_one(table: Path, tmp_path: Path) -> None:
    import torch

    from tests.runs import load, rows

    args = [*FIT, "--data.table", str(table), "--test_after_fit", "false", "--data.num_workers", "0"]
    # Dropout is drawn by each process, and Adam makes much of the last digits of small gradients.
    args += ["--model.net.dropout", "0", "--model.net.word_dropout", "0", "--model.optimizer", "SGD"]
    args += ["--model.optimizer.lr", "0.1"]
    for name, devices in (("one", ["1"]), ("two", ["2", "--trainer.strategy", "ddp"])):
        (tmp_path / name).mkdir()
        finish([*args, "--trainer.devices", *devices], tmp_path / name)
    one, two = (tmp_path / name / RUN for name in ("one", "two"))
    for first, second in pairwise([rows(one), rows(two)]):
        for row, other in zip(first, second, strict=True):
            for key in ("train/loss", "val/loss"):
                assert row[key] == other[key] == "" or float(row[key]) == pytest.approx(float(other[key]), rel=1e-3)
    weights, others = (load(run)["state_dict"] for run in (one, two))
    for key, value in weights.items():
        torch.testing.assert_close(value, others[key], rtol=1e-3, atol=1e-4)
