"""Complete search in sound arithmetic: what it closes holds for the network in float32, summed in any order."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from random import Random

import pytest
import torch
from certify.fakes import diagonal, linear, paired, points, run, spike
from certify.search_cases import fully_split, random_network, uniform, whole
from rounding_cases import exactly, perturbed, tiny
from summation import results
from torch import Tensor, nn

import certtrain
from certtrain import Property
from certtrain.bounds import Box, Given, build, margin_spec
from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.rounding import Rounding, assume, round_errors
from certtrain.certify import Attack
from certtrain.certify.arithmetic import NOTHING, Sound
from certtrain.certify.milp import exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.search import leaves
from certtrain.certify.search.branching import children
from certtrain.certify.search.root import Goals, Root
from certtrain.certify.search.subdomains import Subdomains
from certtrain.certify.search.whole import BranchAndBound
from certtrain.certify.verifiers import choose, resolve
from certtrain.certify.verifiers.bab import Bab
from certtrain.errors import ConfigError

SPLITTINGS = ("neurons", "inputs")
HUGE = 2.0**24
ERROR = 0.05


def proves(model: nn.Module, box: Box, splitting: str, arithmetic: str, label: int = 0) -> bool:
    """Whether branch and bound proves the label."""
    (verifier,) = resolve([Bab(splitting=splitting)])
    if arithmetic == "sound":
        verifier = verifier.judged_in(Sound())
    network = Network.of(model, box.lower.shape[1:])
    return bool(verifier.smallest_margins(network, box, torch.tensor([label]), math.inf).margins > 0)


def cube(center: list[float], radius: list[float]) -> Box:
    middle, half = (torch.tensor([x], dtype=torch.float64) for x in (center, radius))
    return Box(middle - half, middle + half)


# Networks that rounding decides.


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_class_that_the_order_of_summation_decides_is_not_proved(splitting: str) -> None:
    """Class 0 leads by 0.25, which is lost wherever 0.75 meets 2^24 before its negative; 2^2 loses nothing."""
    box = cube([1.0, 1.0, 0.75], [0.0, 0.0, 0.0])
    for size, sound in ((HUGE, False), (4.0, True)):
        model = nn.Sequential(linear([[size, -size, 1.0], [0.0] * 3], [0.0, 0.5]))
        assert proves(model, box, splitting, "float64")
        assert proves(model, box, splitting, "sound") is sound


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_what_only_splits_prove_is_not_proved_where_their_signs_are_lost(splitting: str) -> None:
    """Class 0 leads by relu(z) - relu(-z) - z + 0.25, which is 0.25; in float32 each of the three z is another."""
    box = cube([1.0, 1.0, 0.0], [0.0, 0.0, 0.8])
    for size, sound in ((HUGE, False), (4.0, True)):
        first = linear([[size, -size, 1.0], [-size, size, -1.0], [size, -size, 1.0]], [0.0, 0.0, 1.0])
        model = nn.Sequential(first, nn.ReLU(), linear([[1.0, -1.0, -1.0], [0.0] * 3], [1.25, 0.0]))
        assert proves(model, box, splitting, "float64")
        assert proves(model, box, splitting, "sound") is sound


@lru_cache
def cancelling(seed: int, margin: float) -> tuple[Network, Box, Tensor, int]:
    """A network whose smallest margin is known, behind terms a thousand times as large that cancel.

    Returns:
        The network, a box of three inputs that have a width, a point of it with about that margin, and the label.
    """
    plain = random_network(seed)
    large = 4096 * (1 + uniform(8, 1, seed=seed).float())
    first = linear(torch.cat([plain.module[0].weight, large, -large], dim=1).tolist(), plain.module[0].bias.tolist())
    module = nn.Sequential(first, *plain.module[1:]).requires_grad_(False)
    center, radius = torch.ones(1, 5).double(), torch.zeros(1, 5).double()
    center[:, :3], radius[:, :3] = uniform(1, 3, seed=seed), 0.2
    box, label = Box(center - radius, center + radius), int(module(center.float()).argmax())
    found = Network.of(module, (5,))
    spec = margin_spec([label], 3).double()
    exact = exact_minimum(found.graph, found.values[torch.float64], box, spec)
    module[-1].bias.data[label] -= float(exact.upper.min()) - margin
    return Network.of(module, (5,)), box, exact.points[0, int(exact.upper[0].argmin())], label


def smallest_in_any_order(network: Network, x: Tensor, label: int, orders: int) -> float:
    spec, smallest = margin_spec([label], 3).double()[0], math.inf
    for order in range(orders):
        found = results(network.graph, dict(network.values[torch.float32]), x.float(), Random(order))[-1]
        smallest = min(smallest, float((found.double() @ spec.mT).min()))
    return smallest


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_margins_that_an_order_of_summation_turns_negative_are_not_proved(splitting: str) -> None:
    flipped = 0
    for seed in range(3):
        network, box, point, label = cancelling(seed, 1e-4)
        assert proves(network.module, box, splitting, "float64", label)
        assert not proves(network.module, box, splitting, "sound", label)
        flipped += smallest_in_any_order(network, point[None], label, 60) < 0
    assert flipped > 0


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_what_is_proved_holds_in_every_order(splitting: str) -> None:
    for seed in range(3):
        network, box, point, label = cancelling(seed, 0.15)
        assert proves(network.module, box, splitting, "sound", label)
        x = box.lower + (box.upper - box.lower) * uniform(200, 5, seed=seed)
        assert smallest_in_any_order(network, torch.cat([x, point[None]]), label, 10) > 0


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_what_overflows_in_float32_is_left_open(splitting: str) -> None:
    model = nn.Sequential(linear([[2.0**100, 0.0], [0.0, 2.0**100]]), nn.ReLU(), linear([[2.0**20, 0.0], [0.0, 1.0]]))
    network = Network.of(model, (2,))
    verifier = Bab(splitting=splitting, arithmetic=Sound())
    proved = verifier.smallest_margins(network, cube([1.0, 0.5], [0.0, 0.0]), torch.tensor([0]), math.inf)
    assert proved.margins.tolist() == [NOTHING]
    assert proved.finished.all()


# Parts of a box, by errors far larger than those of rounding.


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
    lower, exact = (leaves.solve(r, part).lower if leaf else float(r.proved(*at)) for r in roots)
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
        part = children(part, torch.tensor([column]))[0:1]
    assert 1 - 2 * ERROR - 1e-6 < leaves.solve(root, part).lower <= 1 - 2 * ERROR


def test_a_decision_is_about_the_number_that_is_computed() -> None:
    """Where x + d >= 0, x may be -ERROR: x + 1, by a neuron and two outputs that are off, too, is 1 - 4 ERROR."""
    module = nn.Sequential(
        linear([[1.0], [1.0]], [0.0, 10.0]), nn.ReLU(), linear([[0.0, 1.0], [0.0, 0.0]], [-9.0, 0.0])
    )
    network, box = Network.of(module, (1,)), Box(*(torch.tensor([[x]]).double() for x in (-1.0, 1.0)))
    root, _, _ = with_large_errors(network, box, Goals.margins(margin_spec([0], 2)[0].double()))
    part = children(whole(root), root.free[0].nonzero()[0])[0:1]
    assert 1 - 4 * ERROR - 1e-6 < leaves.solve(root, part).lower <= 1 - 4 * ERROR


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


# The same answers wherever rounding does not matter, everywhere that the arithmetic is named.


def test_ordinary_networks_have_the_same_verdicts() -> None:
    torch.manual_seed(0)
    model = random_network(1, inputs=12).module
    images = torch.rand((5, 12))
    labels, statuses = model(images).argmax(1), {}
    for arithmetic in ("float64", "sound"):
        verdicts = certtrain.certify(
            model, images, labels, 0.12, relaxations="bab", arithmetic=arithmetic, attack=Attack(steps=0)
        )
        statuses[arithmetic] = [verdict.status for verdict in verdicts]
    assert statuses["sound"] == statuses["float64"]
    assert set(statuses["sound"]) == {"verified", "falsified"}


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_verdicts_by_hand(splitting: str) -> None:
    assert proves(paired(), cube([0.5, 0.5], [0.1, 0.1]), splitting, "sound")
    assert proves(spike(0.05), cube([0.3, 0.5], [0.2, 0.2]), splitting, "sound")
    assert not proves(spike(0.05), cube([0.5, 0.5], [0.2, 0.2]), splitting, "sound")
    assert run(spike(0.05), points((0.5, 0.5)), 0.2, Bab(splitting=splitting), arithmetic="sound")[0].falsified_by


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_properties_are_decided(splitting: str) -> None:
    """|z| <= -0.1 or |z| >= 1.7 for z = x1 - x2 in [-1.6, 1.6]: two conjunctions, and what rounding leaves of them."""
    for size, status in ((4.0, "unsat"), (HUGE, "unknown")):
        first = linear([[size, 1.0, -1.0, -size], [-size, -1.0, 1.0, size]])
        model = nn.Sequential(first, nn.ReLU(), linear([[1.0, 1.0], [1.0, -1.0]]))
        rows = [([[1.0, 0.0]], [-0.1]), ([[-1.0, 0.0], [0.0, -1.0]], [-1.7, 0.0])]
        property = Property.from_constraints([1.0, -0.8, -0.8, 1.0], [1.0, 0.8, 0.8, 1.0], rows)
        search = BranchAndBound(splitting=splitting)
        for arithmetic, expected in (("float64", "unsat"), ("sound", status)):
            found = certtrain.decide(model, property, 30, search=search, arithmetic=arithmetic)
            assert found.status == expected
            assert (found.bound > 0) is (expected == "unsat")


def test_its_name_is_part_of_the_settings_and_no_option() -> None:
    (plain,), (sound,) = resolve("bab"), choose(["bab"], {}, Sound())
    assert sound.describe() == plain.describe() + ", arithmetic=sound"
    with pytest.raises(ConfigError, match="verifier bab has no option 'arithmetic'"):
        choose(["bab"], {"bab": {"name": "bab", "arithmetic": "sound"}})
    with pytest.raises(ConfigError, match="verifier milp has no arithmetic to choose"):
        resolve("milp", Sound())


def test_networks_that_are_not_of_float32_are_refused() -> None:
    model = diagonal().double()
    model[0].weight.data += 2.0**-40
    message = r"in float32, which '0.weight' is no tensor of: convert the network with .float\(\)"
    with pytest.raises(ConfigError, match=message):
        run(model, points((0.9, 0.1)), 0.01, "bab", arithmetic="sound")
    property = Property.robust([0.9, 0.1], 0, 0.01, 2)
    with pytest.raises(ConfigError, match=message):
        certtrain.decide(model, property, arithmetic="sound")
    with pytest.raises(ConfigError, match="^arithmetic must be one of float64, sound, got 'sond'; did you mean"):
        certtrain.decide(diagonal(), property, arithmetic="sond")
