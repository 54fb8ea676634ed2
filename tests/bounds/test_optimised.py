"""Optimised bounds: derivatives, and what the ascent promises."""

from dataclasses import dataclass, replace

import pytest
import torch
from cases import Case
from optimised_cases import OPTIMISED, drawn, optimised

from certtrain.activations import Interval
from certtrain.bounds import Box, build
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
from certtrain.networks.ops import Activation


@pytest.fixture(params=OPTIMISED, scope="module")
def network(request: pytest.FixtureRequest) -> Case:
    return optimised(request.param)


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


def test_a_step_by_compiled_code_is_a_step_of_adam(network: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question.of(network)
    found = improve(question.rows, question.choice, 6)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_code", lambda *tensors: None)
        expected = improve(question.rows, question.choice, 6)
    torch.testing.assert_close(found.lower, expected.lower, rtol=1e-9, atol=1e-9)
