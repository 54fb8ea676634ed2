from itertools import chain

import pytest
import torch

from certtrain.data.sampler import BatchRows, SequentialBatches, ShuffledBatches

ROWS = torch.arange(100, 120)


def batches(sampler):
    return [list(batch) for batch in sampler]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20, 50])
def test_an_epoch_covers_every_row_once(batch_size):
    sampler = ShuffledBatches(ROWS, batch_size, seed=0)
    drawn = batches(sampler)
    assert sorted(chain(*drawn)) == ROWS.tolist()
    assert len(drawn) == len(sampler) == -(-20 // batch_size)
    assert all(len(batch) == batch_size for batch in drawn[:-1])


def test_drop_last_gives_full_batches_only():
    sampler = ShuffledBatches(ROWS, 7, seed=0, drop_last=True)
    assert [len(batch) for batch in sampler] == [7, 7]
    assert len(sampler) == 2
    assert batches(sampler) == batches(ShuffledBatches(ROWS, 7, seed=0))[:2]


def test_order_is_a_pure_function_of_seed_and_epoch():
    first, second = ShuffledBatches(ROWS, 6, seed=1), ShuffledBatches(ROWS, 6, seed=1)
    list(first)  # neither what was drawn before, nor global random state, plays a role
    torch.manual_seed(5)
    first.set_epoch(3)
    second.set_epoch(3)
    assert batches(first) == batches(second) == batches(second)


def test_seeds_and_epochs_give_different_orders():
    orders = set()
    for seed in range(3):
        sampler = ShuffledBatches(ROWS, 20, seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(next(iter(sampler))))
    assert len(orders) == 9


def test_order_does_not_change_between_versions():
    sampler = ShuffledBatches(torch.arange(10), 10, seed=0)
    sampler.set_epoch(1)
    assert batches(sampler) == [[5, 2, 6, 8, 1, 3, 4, 7, 0, 9]]


def test_batches_know_their_place():
    sampler = ShuffledBatches(ROWS, 8, seed=0)
    sampler.set_epoch(2)
    drawn = list(sampler)
    assert all(isinstance(batch, BatchRows) for batch in drawn)
    assert [(batch.epoch, batch.number) for batch in drawn] == [(2, 0), (2, 1), (2, 2)]


def test_resume_skips_batches_and_keeps_numbers():
    sampler = ShuffledBatches(ROWS, 6, seed=0)
    sampler.set_epoch(4)
    whole = batches(sampler)
    resumed = ShuffledBatches(ROWS, 6, seed=0)
    resumed.resume(epoch=4, start=2)
    resumed.set_epoch(4)  # as Lightning does before it iterates
    assert batches(resumed) == whole[2:]
    assert [batch.number for batch in resumed] == [2, 3]
    assert len(resumed) == len(whole)
    resumed.set_epoch(5)
    assert len(batches(resumed)) == len(whole)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_sequential_batches_keep_the_order_and_drop_nothing(batch_size):
    rows = torch.tensor([5, 2, 9, 11, 3, 8, 0])
    sampler = SequentialBatches(rows, batch_size)
    drawn = batches(sampler)
    assert list(chain(*drawn)) == rows.tolist()
    assert len(drawn) == len(sampler)
