"""Batches contain every sample once, for any number of processes."""

import numpy as np
import pytest

from project.datamodules.sampler import EpochBatchSampler


@pytest.mark.parametrize("size", [1, 2, 7, 16, 33, 64, 65])
@pytest.mark.parametrize(("batch", "world"), [(1, 1), (2, 1), (2, 2), (5, 3), (16, 1), (16, 2), (16, 4)])
def test_ranks_share_every_batch(size: int, batch: int, world: int) -> None:
    world = min(world, size)
    ranks = [list(EpochBatchSampler(size, batch, "reshuffled each epoch", 5, rank, world)) for rank in range(world)]
    assert len({len(steps) for steps in ranks}) == 1
    assert all(step.positions for steps in ranks for step in steps)
    assert sorted(i for steps in ranks for step in steps for i in step.positions) == list(range(size))


@pytest.mark.parametrize(("size", "batch", "batches"), [(41, 40, 1), (42, 40, 2), (43, 20, 3), (5, 1, 5), (5, 2, 2)])
def test_no_batch_has_one_sample_unless_batch_size_is_one(size: int, batch: int, batches: int) -> None:
    one = [len(request.positions) for request in EpochBatchSampler(size, batch, "shuffled")]
    assert len(one) == batches and sum(one) == size and min(one) >= min(2, batch)
    if batch > 1:
        assert len(EpochBatchSampler(size, batch, "shuffled", 0, 0, 2)) == batches, "two processes take the same steps"


def test_order_is_a_function_of_seed_and_epoch() -> None:
    one, other = (EpochBatchSampler(50, 8, "reshuffled each epoch", seed=1) for _ in range(2))
    first = list(one)
    one.set_epoch(3)
    third = list(one)
    other.set_epoch(3)
    assert list(other) == third and third[0].epoch == 3
    assert [step.positions for step in third] != [step.positions for step in first]
    assert [i for step in EpochBatchSampler(50, 8, "sequential") for i in step.positions] == list(range(50))


def test_balanced_order_draws_every_class_equally_often() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    ranks = [list(EpochBatchSampler(100, 10, "reshuffled each epoch", 0, rank, 2, strata=labels)) for rank in range(2)]
    drawn = np.array([i for steps in ranks for step in steps for i in step.positions])
    assert len(drawn) == 100 and np.ptp(np.bincount(labels[drawn])) <= 2
    assert set(drawn[labels[drawn] == 1]) == set(range(90, 98)), "all samples of a rare class are used"


def test_shuffled_order_is_the_same_in_every_epoch() -> None:
    batches = EpochBatchSampler(50, 8, "shuffled", seed=1)
    first = [step.positions for step in batches]
    batches.set_epoch(3)
    assert [step.positions for step in batches] == first and first[0] != list(range(8))
