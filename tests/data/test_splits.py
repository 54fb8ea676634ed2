import pytest
import torch

from certtrain.data.splits import stratified_split


def uneven_labels():
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate((100, 57, 33, 7, 3))])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("size", [0, 1, 20, 41, 199, 200])
def test_parts_are_disjoint_complete_and_of_the_asked_size(size):
    rest, chosen = stratified_split(uneven_labels(), size, seed=0)
    assert len(chosen) == size
    assert torch.equal(torch.cat([rest, chosen]).sort().values, torch.arange(200))
    assert torch.equal(rest, rest.sort().values)
    assert torch.equal(chosen, chosen.sort().values)


@pytest.mark.parametrize("size", [1, 20, 41, 150])
def test_each_class_gives_its_share_within_one(size):
    labels = uneven_labels()
    _, chosen = stratified_split(labels, size, seed=0)
    share = labels.bincount(minlength=5) * size / 200
    assert (labels[chosen].bincount(minlength=5) - share).abs().max() < 1


def test_seed_chooses_the_rows_but_not_how_many_per_class():
    labels = uneven_labels()
    _, first = stratified_split(labels, 41, seed=0)
    _, again = stratified_split(labels, 41, seed=0)
    _, other = stratified_split(labels, 41, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(labels[first].bincount(), labels[other].bincount())


def test_the_split_does_not_change_between_versions():
    _, chosen = stratified_split(torch.arange(20) % 3, 7, seed=0)
    assert chosen.tolist() == [1, 3, 4, 6, 11, 17, 18]
