"""Batches: nothing lost, nothing twice, the same for any number of processes."""

import pytest

from project.datamodules.sampler import EpochBatches


@pytest.mark.parametrize("size", [1, 2, 7, 16, 33, 64, 65])
@pytest.mark.parametrize("batch", [1, 2, 5, 16])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_every_batch(size: int, batch: int, world: int) -> None:
    if world > batch or world > size:
        pytest.skip("refused by the datamodule")
    ranks = [list(EpochBatches(size, batch, True, 5, rank, world)) for rank in range(world)]
    assert len({len(steps) for steps in ranks}) == 1
    assert all(step for steps in ranks for step in steps)
    assert sorted(i for steps in ranks for step in steps for i in step) == list(range(size))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    one, other = EpochBatches(50, 8, True, seed=1), EpochBatches(50, 8, True, seed=1)
    first = list(one)
    one.set_epoch(3)
    third = list(one)
    other.set_epoch(3)
    assert list(other) == third != first
    assert [i for step in EpochBatches(50, 8, False) for i in step] == list(range(50))
