"""alpha_crown: between deeppoly and the exact minimum."""

import pytest
import torch
from cases import Case, make_case
from optimised_cases import CLASSES, OPTIMISED, drawn, optimised
from torch import Tensor, nn

import certtrain
from certtrain.bounds import Box, build, margin_spec
from certtrain.bounds.relaxation.alpha_crown import AlphaCrown
from certtrain.certify.milp import exact_minimum
from certtrain.errors import ConfigError
from certtrain.networks import parameters, trace


@pytest.fixture(params=OPTIMISED, scope="module")
def network(request: pytest.FixtureRequest) -> Case:
    return optimised(request.param)


def test_alpha_crown_lies_between_deeppoly_and_the_truth(network: Case) -> None:
    box = network.box(0.03)
    found = AlphaCrown(iterations=10).bound(network.graph, network.params, box, network.spec)
    lower, upper = found.lower, found.upper
    plain = build("deeppoly").bound(network.graph, network.params, box, network.spec)
    assert (lower >= plain.lower).all()
    assert (upper <= plain.upper).all()
    assert (lower > plain.lower + 1e-4).any()
    for seed in range(50):
        share = drawn(*box.lower.shape, seed=seed)
        x = box.lower + (box.upper - box.lower) * (share.round() if seed % 2 else share)
        margins = network.margins(x)
        assert (lower <= margins + 1e-9).all()
        assert (margins <= upper + 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
def test_alpha_crown_is_never_above_the_exact_minimum(seed: int) -> None:
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, CLASSES)]
    module = nn.Sequential(*layers).double().requires_grad_(False)
    graph, params = trace(module, (4,)), parameters(module)
    box, spec = Box.linf(drawn(1, 4, seed=seed), 0.3), margin_spec([seed % CLASSES], CLASSES).double()
    exact = exact_minimum(graph, params, box, spec)
    found = AlphaCrown(iterations=40).bound(graph, params, box, spec, "lower").lower
    plain = build("deeppoly").bound(graph, params, box, spec, "lower").lower
    assert (plain <= found).all()
    assert (found <= exact.upper + 1e-9).all()


@pytest.mark.parametrize("seed", range(3))
def test_tighter_inner_bounds_never_cost_what_deeppoly_proves(seed: int) -> None:
    """They change the slopes that rows begin with: with one step this one fell behind by more than one."""
    case = make_case("residual_mlp", seed)
    plain = build("deeppoly").bound(case.graph, case.params, case.box(0.1), case.spec)
    for iterations in (1, 3):
        found = AlphaCrown(iterations=iterations).bound(case.graph, case.params, case.box(0.1), case.spec)
        assert (found.lower >= plain.lower).all()
        assert (found.upper <= plain.upper).all()


def test_no_step_is_deeppoly(network: Case) -> None:
    box = network.box(0.1)
    found = AlphaCrown(iterations=0).analyse(network.graph, network.params, box, network.spec)
    expected = build("deeppoly").analyse(network.graph, network.params, box, network.spec)
    assert torch.equal(found.bounds.lower, expected.bounds.lower)
    assert torch.equal(found.bounds.upper, expected.bounds.upper)
    for index, z in found.hidden.items():
        assert torch.equal(z.lower, expected.hidden[index].lower)


def test_pieces_and_precision_change_next_to_nothing(network: Case) -> None:
    """The budget cuts rows into pieces; slopes of another precision are close to as good."""
    box, spec = network.box(0.05)[slice(0, 2)], network.spec[:2]
    found = [
        AlphaCrown(iterations=3, **options).analyse(network.graph, network.params, box, spec, "lower")
        for options in ({}, {"memory_mb": 0.2}, {"memory_mb": 500}, {"executor": "tensors"}, {"search": "single"})
    ]
    for other in found[1:4]:
        torch.testing.assert_close(other.bounds.lower, found[0].bounds.lower, rtol=0, atol=1e-8)
        for index, z in other.hidden.items():
            torch.testing.assert_close(z.upper, found[0].hidden[index].upper, rtol=0, atol=1e-8)
    torch.testing.assert_close(found[4].bounds.lower, found[0].bounds.lower, rtol=1e-2, atol=1e-2)
    assert found[4].bounds.lower.dtype == torch.float64


def test_a_population_is_bounded_like_its_members_after_several_steps(network: Case) -> None:
    stacked = {k: torch.stack([p, 1.1 * p]) for k, p in network.params.items()}
    box, spec = network.box(0.02)[slice(0, 1)], network.spec[:1]

    def lower(params: dict[str, Tensor]) -> Tensor:
        return AlphaCrown(iterations=3).bound(network.graph, params, box, spec, "lower").lower

    together = torch.func.vmap(lower)(stacked)
    for i in range(2):
        torch.testing.assert_close(together[i], lower({k: p[i] for k, p in stacked.items()}), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "relaxation.iterations must be a whole number >= 0, got -1"),
        ({"iterations": 2.5}, "relaxation.iterations must be a whole number >= 0, got 2.5"),
        ({"iterations": True}, "relaxation.iterations must be a whole number >= 0, got True"),
        ({"search": "half"}, "relaxation.search must be one of own, single, got 'half'"),
        ({"lower_slope": "zero"}, "relaxation alpha_crown has no option 'lower_slope'"),
        ({"memory_mb": 0}, "relaxation.memory_mb must be a positive number"),
        ({"backend": "auto_lirpa"}, "one of ibp, crown_ibp, deeppoly"),
    ],
)
@pytest.mark.usefixtures("as_users_call")
def test_mistakes_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build("alpha_crown", **options)
    assert "\n" not in str(caught.value)


def test_a_budget_below_one_row_is_refused() -> None:
    case = make_case("strided")
    with pytest.raises(ConfigError, match="memory_mb=1e-05 is too small"):
        certtrain.bound(case.network, case.box(0.1), build("alpha_crown", memory_mb=1e-5))
