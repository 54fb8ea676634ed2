"""Bounds that hold wherever a goal is met."""

import math

import pytest
import torch
from certify.search_cases import SQUARE, above, diagonal, hard_goal, random_network, root_of, uniform
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify.network import Network
from certtrain.certify.search import narrowing
from certtrain.certify.search.narrowing import Narrowed, Narrowing
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.verifiers.bab import Bab
from certtrain.errors import ConfigError


def narrow(root: Root) -> Root | None:
    with torch.no_grad():
        found = Narrowing().narrow(Narrowed.of(root, 0))
    return None if found is None else found.root


def test_a_neuron_is_decided_where_the_output_says_so() -> None:
    found = narrow(above(diagonal(), SQUARE, [1.0], -1.0))
    assert found is not None
    assert found.decided.tolist() == [[-1, 1]]
    # Where x0 + x1 <= -1, the first pre-activation is between -2 and -1; once it is decided, bounds are good enough.
    assert -1.0 <= float(found.bounds.upper[0, 0]) <= 0.0
    assert 0.0 <= float(found.bounds.lower[0, 1]) <= 1.0


def test_nothing_is_left_where_there_is_no_counterexample() -> None:
    assert narrow(above(diagonal(), SQUARE, [1.0], -2.01)) is None
    assert narrow(above(diagonal(), SQUARE, [1.0], -1.99)) is not None


def sometimes_unsafe(seed: int, forms: int) -> tuple[Network, Root, Tensor]:
    """A network, a goal that about a twentieth of the inputs meets, and some of these."""
    network = random_network(seed, inputs=4)
    box = Box.linf(uniform(1, 4, seed=seed), 0.5, None)
    x = box.lower + (box.upper - box.lower) * uniform(4000, 4, seed=seed + 1)
    rows = torch.randn((forms, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = network.logits(x) @ rows.T
    limit = values.amax(1).quantile(0.05)
    root = root_of(network, box, Goals(rows[None], (-limit).expand(1, forms)))
    return network, root, x[(values <= limit).all(1)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("forms", [1, 2])
def test_bounds_hold_at_all_counterexamples(seed: int, forms: int) -> None:
    network, root, unsafe = sometimes_unsafe(seed, forms)
    assert len(unsafe) >= 200
    found = narrow(root)
    assert found is not None
    results = network.graph.results(dict(network.values[torch.float64]), unsafe)
    z = found.columns(lambda part: results[part.read], unsafe)
    assert (z >= found.bounds.lower).all()
    assert (z <= found.bounds.upper).all()
    assert (found.bounds.lower >= root.bounds.lower).all()
    widths = [(one.bounds.upper - one.bounds.lower)[root.free].sum() for one in (root, found)]
    assert widths[1] < 0.99 * widths[0], "it is of use"
    signs = found.decided.expand(len(z), -1)
    assert ((z * signs) >= 0).all()


def test_rows_that_do_not_fit_into_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    _, root, _ = sometimes_unsafe(3, 1)
    found = narrow(root)
    monkeypatch.setattr(narrowing, "MEMORY", 3 * root.bytes_per_row)
    again = narrow(root)
    assert found is not None
    assert again is not None
    torch.testing.assert_close(again.bounds.lower, found.bounds.lower)
    torch.testing.assert_close(again.bounds.upper, found.bounds.upper)


def test_an_infinite_bound_refutes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Root, "proved", lambda root, decisions, *_: torch.full((len(decisions),), math.inf).double())
    _, root, _, _ = hard_goal(1, 5.0)
    monkeypatch.setattr(narrowing.Layer, "bounds", lambda layer, root, *_: (*_ends(layer, root), layer))
    assert narrow(root) is not None


def _ends(layer: narrowing.Layer, root: Root) -> tuple[Tensor, Tensor]:
    return root.bounds.lower[0, layer.part.columns], root.bounds.upper[0, layer.part.columns]


def test_without_rounds_boxes_are_left_as_they_are() -> None:
    root = above(diagonal(), SQUARE, [1.0], -1.0)
    with torch.no_grad():
        known = Narrowed.of(root, 0)
        assert Narrowing(rounds=0).narrow(known) is known
    with pytest.raises(ConfigError, match="narrowing must be a whole number of rounds >= 0, got -1"):
        Bab(narrowing=-1)


def test_a_bound_that_is_no_number_decides_nothing() -> None:
    root = above(diagonal(), SQUARE, [math.nan], -1.0)
    found = narrow(root)
    assert found is not None
    assert (found.decided == 0).all()
