"""What branch and bound splits, and where children begin."""

from dataclasses import replace

import pytest
import torch
from certify.fakes import linear
from certify.search_cases import hard_goal, question, root_of, uniform, whole
from torch import Tensor, nn

from certtrain.bounds import Box
from certtrain.certify.network import Network
from certtrain.certify.search.bounding import bound
from certtrain.certify.search.branching import NOT_SPLIT, Probing, Split, candidates, children, choose
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import Effort, Search
from certtrain.certify.search.subdomains import Subdomains

INFINITY = float("inf")


@pytest.mark.parametrize("seed", range(4))
def test_children_are_bounded_where_they_are(seed: int) -> None:
    """No point of a child is below its bound, the bound of both is not below the parent's after the ascent's start."""
    network, box, root = question(seed)
    columns = candidates(root, whole(root).decisions, torch.zeros(1).long(), whole(root).choice, 3).columns
    assert (columns != NOT_SPLIT).all()
    pair = children(whole(root), Split.plain(columns[:, 0]))
    assert pair.decisions[:, columns[0, 0]].tolist() == [1, -1]
    assert pair.choice.slopes[:, columns[0, 0]].tolist() == [1, 0]
    parent = root.rows(root.double, whole(root).decisions, torch.zeros(1).long())
    before = parent.lower(whole(root).choice.map(Tensor.double)).lower
    found = bound(root, pair.decisions, pair.goal, pair.choice, (5, 5))
    exact = root.rows(root.double, pair.decisions[found.open], pair.goal[found.open])
    lower = torch.full((2,), INFINITY).double()
    lower[found.open] = exact.lower(found.choice.map(Tensor.double)).lower
    assert (lower >= before - 1e-4).all()
    x = box.lower + (box.upper - box.lower) * uniform(4000, 3, seed=seed)
    results = network.graph.results(network.values[torch.float64], x)
    z = root.columns(lambda part: results[part.read], x)[:, columns[0, 0]]
    values = root.double.goals.largest(results[-1], torch.zeros(len(x)).long())
    for child, inside in enumerate((z >= 0, z <= 0)):
        if inside.any() and child in found.open:
            assert values[inside].amin() >= lower[child] - 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_children_do_not_begin_below_their_parent(seed: int) -> None:
    """Whatever it chose: where a neuron's lower line was taken, a multiplier gives that line back."""
    _, _, root = question(seed)
    count = 40
    part = whole(root)[torch.zeros(count).long()]
    slopes = torch.where(root.undecided, uniform(count, root.space.size, seed=seed).float(), part.choice.slopes)
    choice = replace(part.choice, slopes=slopes)
    parent = root.rows(root.double, part.decisions, part.goal).lower(choice.map(Tensor.double)).lower
    found = candidates(root, part.decisions, part.goal, choice, 3)
    part = replace(part, choice=choice, lower=parent.float())
    part = replace(part, candidates=found.columns, coefficients=found.coefficients)
    split = choose(root, part, Probing.among(len(part), 4), 4)
    chosen = found.columns == split.column[:, None]
    assert chosen.any(1).all()
    bounds = []
    for way in (split, Split.plain(split.column)):
        pair = children(part, way)
        own = pair.choice.map(Tensor.double)
        bounds.append(root.rows(root.double, pair.decisions, pair.goal).lower(own).lower.reshape(2, count))
    lower = (found.coefficients > 0)[chosen]
    assert len(lower) == count
    begun, plain = (x[:, lower] for x in bounds)
    assert (begun >= parent[lower] - 1e-5).all()
    assert (begun >= plain - 1e-5).all()


@pytest.mark.parametrize("probing", [Probing(3, 0), Probing(6, 4)])
def test_parts_are_split_as_each_is_alone(probing: Probing) -> None:
    """However many there are, and however many candidates are tried together."""
    _, _, root = question(1)
    parents = whole(root)[torch.zeros(1).long()]
    for _ in range(4):
        found = candidates(root, parents.decisions, parents.goal, parents.choice, 6)
        lower = root.rows(root.single, parents.decisions, parents.goal).lower(parents.choice).lower
        parents = replace(parents, lower=lower, candidates=found.columns, coefficients=found.coefficients)
        split = choose(root, parents, probing, 2)
        alone = [choose(root, parents[at : at + 1], probing, 6) for at in range(len(parents))]
        assert split.column.tolist() == [int(one.column) for one in alone]
        on, off = split.multipliers.split(len(parents))
        torch.testing.assert_close(torch.stack([on, off], 1), torch.stack([one.multipliers for one in alone]))
        parents = children(parents, split)
    assert len(parents) == 16
    assert len(set(split.column.tolist())) > 1


def test_few_are_what_is_open_not_what_is_split_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory makes batches of one part, there may be thousands open."""
    met: list[tuple[int, int]] = []

    def noted(root: Root, parents: Subdomains, probing: Probing, together: int) -> Split:
        met.append((len(search._pool) + len(parents), probing.steps))
        return choose(root, parents, probing, together)

    monkeypatch.setattr("certtrain.certify.search.search.choose", noted)
    _, root, _, _ = hard_goal(1, 0.001)
    search = Search(root, effort=Effort(batch=1, rounds=(0,), descents=0))
    with torch.no_grad():
        search.run(most=60)
    assert {steps > 0 for count, steps in met if count <= 8} == {True}
    assert {steps for count, steps in met if count > 8} == {0}


def test_few_are_tried_thoroughly() -> None:
    assert Probing.among(9, 3) == Probing(3, 0)
    thorough = Probing.among(8, 3)
    assert thorough.candidates > 3
    assert thorough.steps > 0


def test_a_sign_alone_may_be_a_loss() -> None:
    """relu(relu(x) - relu(x - 0.5)) - 0.1: where the last one is active, those before it have to be bounded."""
    layers = linear([[1.0], [1.0]], [0.0, -0.5]), nn.ReLU(), linear([[1.0, -1.0]]), nn.ReLU(), linear([[1.0]], [-0.1])
    network, box = Network.traced(nn.Sequential(*layers), (1,)), Box.linf(torch.zeros(1, 1).double(), 1.0, None)
    root = root_of(network, box, Goals(torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double()))
    slopes = torch.zeros(1, root.space.size)
    part = replace(whole(root), choice=replace(whole(root).choice, slopes=slopes))
    parent = root.rows(root.single, part.decisions, part.goal).lower(part.choice).lower
    assert parent.tolist() == pytest.approx([-0.1])
    part = replace(part, lower=parent, candidates=torch.tensor([[2]]), coefficients=torch.ones(1, 1))
    split = choose(root, part, Probing.among(len(part), 4), 4)
    assert split.multipliers.tolist() == [1.0, 0.0]
    bounds = []
    for way in (Split.plain(split.column), split):
        pair = children(part, way)
        bounds.append(root.rows(root.single, pair.decisions, pair.goal).lower(pair.choice).lower)
    assert bounds[0][0] < parent[0] - 0.01
    assert (bounds[1] >= parent - 1e-6).all()
