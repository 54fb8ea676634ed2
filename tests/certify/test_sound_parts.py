"""Bounds of parts of a box hold for every network within errors: rounding's own, and far larger ones."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from certify.fakes import linear
from certify.search_cases import fully_split, random_network, uniform, whole
from rounding_cases import exactly, perturbed, tiny
from torch import Tensor, nn

from certtrain.bounds import Box, Given, build, margin_spec
from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.rounding import Rounding, assume, round_errors
from certtrain.certify.arithmetic import Sound
from certtrain.certify.network import Network
from certtrain.certify.search import leaves
from certtrain.certify.search.branching import Split, children
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains

ERROR = 0.05


def with_large_errors(network: Network, box: Box, goals: Goals) -> tuple[Root, Root, dict[int, Tensor]]:
    """Roots with and without room for an error of every operation, and the errors."""
    graph, values, deeppoly = network.graph, network.values[torch.float64], build("deeppoly")
    read = [op.inputs[0] for _, op in graph.activations]
    room = {i: torch.full((1, *graph.ops[i].shape), ERROR).double() for i in read}
    hidden = deeppoly.analyse(graph, values, box, given=Given(slack=room)).hidden
    found = round_errors(graph, values, box, assume(hidden))
    sizes = tuple(replace(size, error=torch.full_like(size.error, ERROR)) for size in found.sizes)
    rounding = Rounding(found.assumed, room, found.finite, sizes)
    roots = [Root.of(graph, network.values, box, hidden, goals, given) for given in (rounding, None)]
    return roots[0], roots[1], {**room, len(graph.ops) - 1: torch.full((1, graph.num_outputs), ERROR).double()}


def check_part(network: Network, box: Box, roots: tuple[Root, Root], part: Subdomains, errors: dict, seed: int) -> bool:
    """No network within the errors has a smaller value on the part. Whether one is below what has no room for them."""
    root, plain = roots
    at = (part.decisions, part.goal, part.choice)
    leaf = bool((part.decisions != 0)[root.free].all())
    lower, exact = (leaves.solve(r, part)[0].lower if leaf else float(r.proved(*at)) for r in roots)
    count, random = 10_000, torch.Generator().manual_seed(seed)
    signs = {i: torch.randint(0, 2, (count, *e.shape[1:]), generator=random) * 2 - 1 for i, e in errors.items()}
    x = box.lower + (box.upper - box.lower) * uniform(count, *network.graph.input_shape, seed=seed)
    moved = {i: e * signs[i] for i, e in errors.items()}
    found = perturbed(network.graph, dict(network.values[torch.float64]), x, moved)
    z = root.columns(lambda part: found[part.read], x)
    inside = (z * part.decisions >= 0).all(1)
    values = plain.double.goals.largest(found[-1], torch.zeros(count).long())[inside]
    assert len(values)
    assert (values >= lower - 1e-9).all()
    assert lower < exact
    return bool((values < exact - 1e-9).any())


def goals_of(forms: int, seed: int) -> Goals:
    return Goals(uniform(1, forms, 3, seed=seed) - 0.5, uniform(1, forms, seed=seed + 1) - 0.5)


@pytest.mark.parametrize("forms", [1, 2])
def test_leaves_are_bounded_for_all_networks_that_differ_by_the_errors(forms: int) -> None:
    """Splits are made on what the network computes, errors included; without room for them, bounds are too large."""
    too_large = 0
    for seed in range(6):
        network, box = random_network(seed), Box.linf(uniform(1, 3, seed=seed), 0.4)
        root, plain, errors = with_large_errors(network, box, goals_of(forms, seed))
        too_large += check_part(network, box, (root, plain), fully_split(root, box.center[0]), errors, seed)
    assert too_large > 0


def maxima(seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3))
    return Network.of(module.requires_grad_(False), (1, 5, 5))


@pytest.mark.parametrize("make", [random_network, maxima])
@pytest.mark.parametrize("forms", [1, 2])
def test_parts_are_bounded_for_all_networks_that_differ_by_the_errors(forms: int, make: Callable) -> None:
    """Whatever was chosen: some signs of a point, any slopes, any multipliers."""
    for seed in range(4):
        network = make(seed)
        box = Box.linf(uniform(1, *network.graph.input_shape, seed=seed), 0.4)
        root, plain, errors = with_large_errors(network, box, goals_of(forms, seed))
        part, random = fully_split(root, box.center[0]), torch.Generator().manual_seed(seed)
        keep = torch.rand(part.decisions.shape, generator=random) < 0.3
        slopes, multipliers = (torch.rand(keep.shape, generator=random) for _ in range(2))
        choice = Choice(torch.where(keep, part.choice.slopes, slopes), 0.1 * multipliers, part.choice.weights)
        part = replace(part, decisions=part.decisions * keep, choice=choice)
        check_part(network, box, (root, plain), part, errors, seed)


def test_a_part_that_only_rounding_has_points_in_is_closed() -> None:
    """x0 >= 0.5 and x0 <= 0.48 cannot both be, but what is computed of them can; the margin there is 1."""
    module = nn.Sequential(
        linear([[1.0, 0.0], [-1.0, 0.0]], [-0.5, 0.48]), nn.ReLU(), linear([[0.0, 0.0]] * 2, [1.0, 0.0])
    )
    network, box = Network.of(module, (2,)), Box.linf(torch.tensor([[0.5, 0.5]]).double(), 0.3)
    root, _, _ = with_large_errors(network, box, Goals.margins(margin_spec([0], 2)[0].double()))
    part = whole(root)
    for column in (0, 1):
        part = children(part, Split.plain(torch.tensor([column])))[0:1]
    assert 1 - 2 * ERROR - 1e-6 < leaves.solve(root, part)[0].lower <= 1 - 2 * ERROR


def test_a_decision_is_about_the_number_that_is_computed() -> None:
    """Where x + d >= 0, x may be -ERROR: x + 1, by a neuron and two outputs that are off, too, is 1 - 4 ERROR."""
    module = nn.Sequential(
        linear([[1.0], [1.0]], [0.0, 10.0]), nn.ReLU(), linear([[0.0, 1.0], [0.0, 0.0]], [-9.0, 0.0])
    )
    network, box = Network.of(module, (1,)), Box(*(torch.tensor([[x]]).double() for x in (-1.0, 1.0)))
    root, _, _ = with_large_errors(network, box, Goals.margins(margin_spec([0], 2)[0].double()))
    part = children(whole(root), Split.plain(root.free[0].nonzero()[0]))[0:1]
    assert 1 - 4 * ERROR - 1e-6 < leaves.solve(root, part)[0].lower <= 1 - 4 * ERROR


def in_rational_numbers(root: Root, part: Subdomains) -> Fraction:
    """The bound of a part of a network of three linear layers, by the same lines and multipliers, without rounding."""
    rows = root.rows(root.double, part.decisions, part.goal)
    region, shifts = rows.held(part.choice)
    weights, forms, constants = (exactly(x[0]) for x in (part.choice.weights, rows.start.data, rows.start.constant))
    row = [sum(w * form[i] for w, form in zip(weights, forms, strict=True)) for i in range(len(forms[0]))]
    constant = sum(w * c for w, c in zip(weights, constants, strict=True))
    for layer in (4, 2, 0):
        op = region.graph.ops[layer + 1]
        weight, bias = (exactly(region.values[name]) for name in (op.weight, op.bias))
        constant += sum(r * b for r, b in zip(row, bias, strict=True))
        row = [sum(r * w[j] for r, w in zip(row, weight, strict=True)) for j in range(len(weight[0]))]
        if not layer:
            break
        line = region.held[layer]
        low, up, above = (exactly(x[0]) for x in (line.lower, line.upper, line.intercept))
        constant += sum(min(r, 0) * a for r, a in zip(row, above, strict=True))
        row = [r * (a if r > 0 else b) for r, a, b in zip(row, low, up, strict=True)]
        if layer in shifts:
            row = [r + s for r, s in zip(row, exactly(shifts[layer][0]), strict=True)]
    ends = (exactly(x[0]) for x in root.outer)
    return constant + sum(min(r * a, r * b) for r, a, b in zip(row, *ends, strict=True))


@pytest.mark.parametrize("beta", [0.7, 1e6, 1e-310])
@pytest.mark.parametrize("scale", [1.0, 1e-300])
def test_bounds_of_parts_in_float64_are_off_by_no_more_than_is_charged(beta: float, scale: float) -> None:
    """Where weights of very different size cancel; the network's own errors are left out."""
    too_large = 0
    for seed in range(8):
        question, random = tiny(seed, 12), torch.Generator().manual_seed(seed)
        graph, values = question.graph, {torch.float32: question.single, torch.float64: question.double}
        hidden = question.analyse(lower_slope="zero", intersect=False).hidden
        found = round_errors(graph, question.double, question.box, assume(hidden))
        sizes = tuple(replace(size, error=torch.zeros_like(size.error)) for size in found.sizes)
        exact = Rounding(found.assumed, {i: torch.zeros_like(x) for i, x in found.slack.items()}, found.finite, sizes)
        goals = Goals((uniform(1, 3, 2, seed=seed) - 0.5) * scale, (uniform(1, 3, seed=seed + 1) - 0.5) * scale)
        root = Root.of(graph, values, question.box, hidden, goals, exact)
        part = fully_split(root, question.box.center[0])
        keep = torch.rand(part.decisions.shape, generator=random) < 0.6
        slopes, multipliers, weights = (uniform(1, n, seed=seed) for n in (keep.shape[1], keep.shape[1], 3))
        decisions = part.decisions * keep
        fixed = torch.where(decisions == 0, root.double.lower, (decisions > 0).double())
        slopes = torch.where((decisions == 0) & root.free, slopes, fixed)
        part = replace(part, decisions=decisions, choice=Choice(slopes, beta * multipliers, weights / weights.sum()))
        rational = in_rational_numbers(root, part)
        assert Fraction(float(root.proved(decisions, part.goal, part.choice))) <= rational
        uncharged = root.rows(root.double, decisions, part.goal, slopes).lower(part.choice).lower
        too_large += Fraction(float(uncharged)) > rational
    assert too_large > 0


def test_what_is_charged_is_what_a_specification_loses() -> None:
    network, box = random_network(0), Box.linf(uniform(1, 3, seed=0), 0.1)
    known = Sound().known(build("deeppoly"), network.graph, network.values[torch.float64], box)
    rounding, spec = known.rounding, margin_spec([0], 3).double()
    assert rounding is not None
    assert known.holds
    root = Root.of(network.graph, network.values, box, known.hidden, Goals.margins(spec[0]), rounding)
    multipliers = uniform(2, root.space.size, seed=1)
    # Of all neurons: those that are zero on the box have no multipliers.
    layers = {p.read: torch.zeros(2, 8).double() for p in root.space.parts}
    for part, own in root.space.split(multipliers):
        smaller = part.spread(own, torch.zeros(1, root.pruned.graph.ops[part.read].size).double())
        layers[part.read][:, root.pruned.kept.get(part.read, torch.arange(8))] = smaller
    expected = rounding.loss(spec, {i: beta[None] for i, beta in layers.items()})[0]
    choice = Choice(root.double.lower.expand(2, -1), multipliers)
    torch.testing.assert_close(root.charged.of(torch.arange(2), choice), expected, rtol=1e-5, atol=0)
    # Nothing is so small that it loses nothing.
    tiny = Root.of(network.graph, network.values, box, known.hidden, Goals.margins(spec[0] * 1e-300), rounding)
    assert (tiny.charged.forms >= 2.0**-400).all()
    assert (tiny.charged.of(torch.arange(2), choice) >= 2.0**-400).all()
    # Constants and means of forms are charged, too.
    goals = Goals(spec, torch.full((1, 2), 1e9).double())
    far = Root.of(network.graph, network.values, box, known.hidden, goals, rounding)
    mean = Choice(root.double.lower, None, torch.full((1, 2), 0.5).double())
    assert float(far.charged.of(torch.zeros(1).long(), mean)) > 1e9 * 2.0**-53


def test_errors_are_those_of_the_bounds_that_are_proved() -> None:
    """Smaller than those that were assumed before, since alpha-CROWN's bounds are."""
    network, box = random_network(3), Box.linf(uniform(1, 3, seed=3), 0.5)
    values = network.values[torch.float64]
    hidden = build("deeppoly").analyse(network.graph, values, box).hidden
    before = round_errors(network.graph, values, box, assume(hidden))
    known = Sound().known(build("alpha_crown"), network.graph, values, box)
    assert known.holds
    assert all(
        torch.equal(one.paths, other.paths) for one, other in zip(known.rounding.sizes, before.sizes, strict=True)
    )
    assert all((known.rounding.slack[i] <= before.slack[i]).all() for i in hidden)
    assert (known.rounding.sizes[-1].error < before.sizes[-1].error).all()
