"""Optimised bounds: derivatives, what the ascent promises, and alpha_crown between deeppoly and the exact minimum."""

from dataclasses import dataclass, replace

import pytest
import torch
from branches import Parallel
from cases import Case, make_case
from torch import Tensor, nn

import certtrain
from certtrain.activations import Interval
from certtrain.bounds import Box, build, margin_spec
from certtrain.bounds.analysis import Given
from certtrain.bounds.optimised import hidden as hidden_bounds
from certtrain.bounds.optimised import kernels
from certtrain.bounds.optimised.ascent import Best, improve
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.hidden import Tightening
from certtrain.bounds.optimised.passes import Backward, Start, backward, carry
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.bounds.relaxation.alpha_crown import AlphaCrown
from certtrain.certify.milp import exact_minimum
from certtrain.errors import ConfigError
from certtrain.networks import parameters, trace
from certtrain.networks.ops import Activation
from certtrain.testing import Subject

IMAGE = (2, 6, 5)
CLASSES = 3


def convolutional(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        *layers,
        nn.Flatten(),
        nn.LazyLinear(6),
        nn.ReLU(),
        nn.Linear(6, CLASSES),
    )


NETWORKS = {
    "parallel": Parallel,
    "pooled": lambda: convolutional(nn.AvgPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU()),
    "maximum": lambda: convolutional(nn.MaxPool2d(2)),
    "curved": lambda: convolutional(nn.Conv2d(4, 3, 2, stride=2), nn.Sigmoid()),
}


@pytest.fixture(params=[*NETWORKS, "residual"], scope="module")
def network(request: pytest.FixtureRequest) -> Case:
    if request.param == "residual":
        return make_case("residual")
    torch.manual_seed(1)
    module = NETWORKS[request.param]()
    module(torch.zeros(1, *IMAGE))
    for parameter in module.parameters():
        parameter.data.mul_(2.0 if parameter.dim() > 1 else 1.0)
    return Subject.of(module.double(), IMAGE)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Question:
    """Rows of two images, each a mean of several forms, with a fifth of the neurons split; any choice for them."""

    rows: Rows
    choice: Choice

    @staticmethod
    def of(case: Case, forms: int = 3) -> "Question":
        box = case.box(0.1)[slice(0, 2)]
        hidden = build("deeppoly").analyse(case.graph, case.params, box).hidden
        region = Region.of(case.graph, case.graph.values(case.params, box.lower), box, hidden)
        space = Space.of(case.graph, hidden)
        free = space.free(case.graph, hidden, box.lower)
        signs = torch.where(
            free & (drawn(2, space.size, seed=1) < 0.2), (drawn(2, space.size, seed=2) - 0.5).sign(), 0.0
        )
        data, constant = drawn(2, forms, case.graph.num_outputs, seed=3) - 0.5, drawn(2, forms, seed=4)
        weights = drawn(2, forms, seed=5)
        slopes = space.gather(lambda part: region.held[part.activation].lower, box.lower)
        choice = Choice(
            torch.where(free, 0.1 + 0.8 * drawn(2, space.size, seed=6), slopes),
            0.2 * drawn(2, space.size, seed=7),
            weights / weights.sum(1, keepdim=True),
        )
        rows = Rows(region, space, Start(len(case.graph.ops) - 1, data, constant), free, signs)
        assert free.sum() > 5
        assert (signs != 0).any()
        return Question(rows, choice)


def derivatives(rows: Rows, choice: Choice) -> Choice:
    return rows.derivatives(choice, *rows.evaluated(choice))


def test_derivatives_are_those_of_autograd(network: Case) -> None:
    """Of slopes, multipliers and weights of forms, without a tape."""
    question = Question.of(network)
    leaves = question.choice.map(lambda x: x.clone().requires_grad_())
    wanted = torch.autograd.grad(
        question.rows.lower(leaves).lower.sum(), [leaves.slopes, leaves.multipliers, leaves.weights]
    )
    found = derivatives(question.rows, question.choice)
    torch.testing.assert_close(found.slopes, wanted[0] * question.rows.free, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.multipliers, wanted[1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.weights, wanted[2], rtol=1e-9, atol=1e-10)
    assert all((x.abs() > 1e-6).any() for x in wanted)


def test_a_bound_is_the_value_at_its_corner(network: Case) -> None:
    question = Question.of(network)
    found = question.rows.lower(question.choice)
    at_corner = (found.form * found.corner).flatten(1).sum(1) + found.constant
    torch.testing.assert_close(found.lower, at_corner, rtol=1e-9, atol=1e-10)


def test_bounds_hold_where_the_splits_do(network: Case) -> None:
    """No point of the box is below the bound for splits that it agrees with."""
    question = Question.of(network)
    rows, graph = question.rows, network.graph
    box = network.box(0.1)[slice(0, 2)]
    for seed in range(400):
        x = box.lower + (box.upper - box.lower) * drawn(*box.lower.shape, seed=seed)
        results = graph.results(network.params, x)
        z = rows.space.gather(lambda part, results=results: results[part.read], box.lower)
        signs = torch.where(rows.signs != 0, torch.where(z >= 0, 1.0, -1.0), 0.0)
        found = replace(rows, signs=signs).lower(question.choice).lower
        outputs = (rows.start.data @ results[-1][:, :, None]).squeeze(2) + rows.start.constant
        assert (found <= (question.choice.weights * outputs).sum(1) + 1e-9).all()


def test_the_ascent_never_ends_below_where_it_began(network: Case) -> None:
    question = Question.of(network)
    before = question.rows.lower(question.choice).lower
    last = before
    for steps in (0, 1, 5, 20):
        found = improve(question.rows, question.choice, steps)
        assert (found.lower >= last).all(), "more steps are never worse"
        last = found.lower
        torch.testing.assert_close(question.rows.lower(found.choice).lower, last, rtol=0, atol=1e-10)
        assert (found.choice.slopes >= 0).all()
        assert (found.choice.slopes <= 1).all()
        assert (found.choice.multipliers >= 0).all()
        torch.testing.assert_close(found.choice.weights.sum(1), torch.ones(2, dtype=torch.float64))
        fixed = ~question.rows.free
        assert torch.equal(found.choice.slopes[fixed], question.choice.slopes[fixed])
    assert (last > before + 1e-3).all()


def test_it_ends_where_all_are_high_enough(network: Case) -> None:
    question = Question.of(network)
    began = question.rows.lower(question.choice).lower
    found = improve(question.rows, question.choice, 50, enough=float(began.min()) - 1)
    assert torch.equal(found.lower, began)


def test_a_nan_is_never_better() -> None:
    point, choice = torch.zeros(2, 1), Choice(torch.zeros(2, 1))
    best = Best(torch.tensor([-1.0, torch.nan]), choice, point)
    found = Backward(torch.tensor([torch.nan, torch.nan]), point, torch.zeros(2), point + 1, {}, frozenset())
    better = best.better(found, Choice(torch.ones(2, 1)))
    assert better.lower[0] == -1
    assert better.lower[1].isnan()
    assert torch.equal(better.choice.slopes, choice.slopes)
    assert torch.equal(better.corner, point)


def test_rows_over_inner_operations_choose_what_they_pass(network: Case) -> None:
    """Nothing of a branch beside, which is relaxed before; bounds of the sum of a layer are below its values."""
    box = network.box(0.1)
    hidden: dict[int, Interval] = build("deeppoly").analyse(network.graph, network.params, box).hidden
    region = Region.of(network.graph, network.graph.values(network.params, box.lower), box, hidden)
    results = network.graph.results(network.params, network.inputs)
    for _, op in network.graph.activations:
        index = op.inputs[0]
        space, ones = Space.of(network.graph, hidden, output=index), torch.ones_like(results[index])
        assert all(part.activation <= index for part in space.parts)
        slopes = space.gather(lambda part: region.held[part.activation].lower, box.lower)
        start = Start(index, ones, ones.flatten(1)[:, 0] * 0)
        found = improve(Rows(region, space, start, space.free(network.graph, hidden, box.lower)), Choice(slopes), 2)
        assert (found.lower <= results[index].flatten(1).sum(1) + 1e-9).all()


def test_rows_are_carried_to_where_lines_matter(network: Case) -> None:
    """That is where every pass begins, and what it finds is what it finds from the outputs."""
    question = Question.of(network, forms=1)
    rows, ops = question.rows, network.graph.ops
    start = Start(rows.start.index, rows.start.data[:, 0], rows.start.constant[:, 0])
    carried = carry(rows.region, start)
    last = max(carried.pending)
    assert last == 0 or isinstance(ops[last], Activation)
    whole, begun = (backward(rows.region, given) for given in (start, carried))
    torch.testing.assert_close(begun.lower, whole.lower, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(begun.form, whole.form, rtol=1e-12, atol=1e-12)
    assert begun.coefficients.keys() == whole.coefficients.keys()
    for index, own in whole.coefficients.items():
        torch.testing.assert_close(begun.coefficients[index], own, rtol=1e-12, atol=1e-12)
    assert begun.visited < whole.visited
    one = replace(rows, start=start)
    choice = replace(question.choice, weights=None)
    assert one.begun(choice) is one.begun(choice), "once, and not in every pass"
    assert one.begun(choice).pending.keys() == carried.pending.keys()
    doubled = rows.region.map(lambda x: 2 * x)
    constant = replace(one, region=doubled).begun(choice).constant
    assert not torch.equal(constant, one.begun(choice).constant), "another region has its own"


@pytest.mark.parametrize("slack", [0.0, 0.02])
def test_images_one_by_one_have_the_same_bounds(network: Case, slack: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each then has undecided neurons of its own. One image is a point, of which nothing is asked."""
    wide = network.box(0.1)
    box = Box(*(torch.cat([end[:1], network.inputs[1:2], end[2:3]]) for end in (wide.lower, wide.upper)))
    reads = {op.inputs[0] for _, op in network.graph.activations}
    room = {i: slack * drawn(3, *network.graph.ops[i].shape, seed=i) for i in reads}
    found, alone = [], list[int]()
    on = Tightening._on
    monkeypatch.setattr(Tightening, "_on", lambda self, image: alone.append(image) or on(self, image))
    for many in (10**9, 3, 1):
        monkeypatch.setattr(hidden_bounds, "ROWS_FOR_ONE", many)
        given = Given(slack=room if slack else {})
        alpha_crown = AlphaCrown(iterations=3)
        found.append(alpha_crown.analyse(network.graph, network.params, box, network.spec[:3], given=given))
        assert bool(alone) == (many < 10**9)
    together = found[0]
    for apart in found[1:]:
        torch.testing.assert_close(apart.bounds.lower, together.bounds.lower, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(apart.bounds.upper, together.bounds.upper, rtol=1e-9, atol=1e-10)
        for index, z in together.hidden.items():
            torch.testing.assert_close(apart.hidden[index].lower, z.lower, rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(apart.hidden[index].upper, z.upper, rtol=1e-9, atol=1e-10)


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


def test_a_step_by_compiled_code_is_a_step_of_adam(network: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question.of(network)
    found = improve(question.rows, question.choice, 6)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_code", lambda *tensors: None)
        expected = improve(question.rows, question.choice, 6)
    torch.testing.assert_close(found.lower, expected.lower, rtol=1e-9, atol=1e-9)
