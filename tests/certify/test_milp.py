"""Mixed-integer programs: exact minima, verdicts and counterexamples, within a deadline and HiGHS's tolerances."""

import math
import time
from random import Random

import pytest
import torch
import zoo
from cases import make_case
from certify.fakes import linear, paired, points, run, spike
from odd_networks import varied_network
from torch import nn

from certtrain.bounds import Box, build, margin_spec
from certtrain.certify import Attack
from certtrain.certify.milp import Exact, exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.verifiers import choose, resolve
from certtrain.certify.verifiers.milp import Milp
from certtrain.deadline import OutOfTime
from certtrain.errors import ConfigError, UnsupportedOperation
from certtrain.networks import parameters, trace

TOLERANCE = 1e-5
SEEDS = range(40)
# Minima with more undecided activations take long.
MOST_UNDECIDED = 40


def exact(network: nn.Module, box: Box, labels: list[int], **options: object) -> Exact:
    graph = trace(network, box.lower.shape[1:])
    params = {k: p.detach() for k, p in parameters(network).items()}
    spec = margin_spec(labels, graph.num_outputs).double()
    return exact_minimum(graph, params, box, spec, **options)


def of_points(*rows: tuple[float, float], eps: float) -> Box:
    return Box.linf(points(*rows).double(), eps)


def test_minima_by_hand() -> None:
    # 0.1 + relu(x1 - 0.5) on a box where x1 is at least 0.6: intervals and lines miss that the other terms cancel.
    found = exact(paired().double(), of_points((0.5, 0.7), eps=0.1), [0], relaxation=build("ibp"))
    assert found.upper.item() == pytest.approx(0.2, abs=1e-6)
    assert found.lower.item() == pytest.approx(0.2, abs=TOLERANCE)
    # The margin is 1 far away from x0 = 0.6 and -1 there.
    found = exact(spike(0.01).double(), of_points((0.5, 0.5), eps=0.2), [0])
    assert found.upper.item() == pytest.approx(-1.0, abs=1e-4)  # float32 weights of size 400
    assert found.points[0, 0, 0].item() == pytest.approx(0.6, abs=1e-4)
    assert exact(spike(0.01).double(), of_points((0.3, 0.5), eps=0.2), [0]).upper.item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("activation", "smallest"),
    [
        (nn.ReLU(), 0.0),
        (nn.LeakyReLU(0.5), -0.5),
        (nn.LeakyReLU(-0.5), 0.0),
        (nn.Hardtanh(-0.3, 0.4), -0.3),
        (nn.Hardtanh(-3.0, 0.4), -1.0),
        (nn.Hardsigmoid(), 1 / 3),
        (nn.ReLU6(), 0.0),
    ],
)
def test_every_piecewise_linear_function(activation: nn.Module, smallest: float) -> None:
    """Of z in [-1, 1]; and of -f(z) + f(z) = 0, which no relaxation sees."""
    first, last = linear([[2.0, 0.0], [2.0, 0.0]], [-1.0, -1.0]), linear([[1.0, 0.0], [1.0, -1.0], [0.0, 0.0]])
    found = exact(nn.Sequential(first, activation, last).double(), of_points((0.5, 0.5), eps=0.5), [2])
    # Margins of class 2: minus f(z), and minus the difference; of class 0 over class 2, f(z).
    largest = max(activation(torch.tensor([-1.0, 1.0])).tolist())
    assert found.upper[0].tolist() == pytest.approx([-largest, 0.0], abs=TOLERANCE)
    found = exact(nn.Sequential(first, activation, last).double(), of_points((0.5, 0.5), eps=0.5), [0])
    assert found.upper[0, 1].item() == pytest.approx(smallest, abs=TOLERANCE)


@pytest.mark.parametrize("seed", SEEDS)
def test_varied_networks(seed: int) -> None:
    """The enclosure is tight, no point is below it, and it does not depend on where the programs start from."""
    random = Random(seed)
    shape = random.randint(1, 2), random.randint(2, 4), random.randint(2, 4)
    network = varied_network(random, shape, 3)
    center = torch.rand((1, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    graph, params = trace(network, shape), {k: p.detach() for k, p in parameters(network).items()}
    spec, eps, undecided = margin_spec([0], 3).double(), 0.04, MOST_UNDECIDED + 1
    while undecided > MOST_UNDECIDED:
        eps /= 2
        box = Box.linf(center, eps)
        hidden = build("deeppoly").analyse(graph, params, box, spec).hidden
        undecided = sum(int(op.function.undecided(hidden[op.inputs[0]]).sum()) for _, op in graph.activations)
    if any(isinstance(module, (nn.Sigmoid, nn.Tanh)) for module in network.modules()):
        with pytest.raises(UnsupportedOperation, match="is not piecewise linear"):
            exact(network, box, [0])
        return
    found = exact(network, box, [0])
    scale = 1 + found.upper.abs()
    assert (found.lower <= found.upper).all()
    assert (found.upper - found.lower <= 1e-4 * scale).all()
    share = torch.rand((400, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    share[::2] = share[::2].round()
    with torch.no_grad():
        margins = network(box.lower + (box.upper - box.lower) * share) @ spec[0].mT
    assert (found.lower[0] <= margins.amin(0)).all()
    assert (box.lower[:, None] <= found.points).all()
    assert (found.points <= box.upper[:, None]).all()
    other = exact(network, box, [0], relaxation=build("ibp"))
    assert (other.upper - found.upper).abs().le(1e-4 * scale).all()


def test_the_scale_of_a_network_does_not_matter() -> None:
    case = make_case("residual_mlp")
    box = case.box(0.1)[slice(0, 1)]
    found = exact(case.network, box, [0])
    for factor in (1e-6, 1e6):
        case.network.last.weight.data.mul_(factor)
        case.network.last.bias.data.mul_(factor)
        scaled = exact(case.network, box, [0])
        torch.testing.assert_close(scaled.upper / factor, found.upper, rtol=1e-5, atol=1e-5)
        assert (scaled.upper - scaled.lower <= 1e-4 * factor).all()
        case.network.last.weight.data.div_(factor)
        case.network.last.bias.data.div_(factor)


def test_what_is_not_finite_claims_nothing() -> None:
    for value in (math.nan, math.inf):
        network = paired().double()
        network[0].weight.data[2, 0] = value
        found = exact(network, of_points((0.5, 0.7), eps=0.1), [0])
        assert found.lower.isnan().all()
        # Where the weight does not count, either.
        network = paired().double()
        network[0].bias.data[2] = value
        verdicts = run(network.float(), points((0.5, 0.7)), 0.1, "milp", attack=Attack(steps=0))
        assert verdicts[0].status == "error"


def test_verdicts() -> None:
    verified, falsified = run(paired(), points((0.5, 0.7), (0.5, 0.2)), 0.1, "milp", attack=Attack(steps=0))
    assert (verified.status, verified.verified_by) == ("verified", "milp")
    assert 0 < verified.margins["milp"] < 0.2 + TOLERANCE
    assert falsified.verified_by == "milp", "its margin is 0.1 everywhere"


def test_a_counterexample_that_no_gradient_shows() -> None:
    network = Network.of(spike(0.01), (2,))
    box, label = of_points((0.5, 0.5), (0.3, 0.5), eps=0.2), torch.tensor([0, 0])
    _, hit = Attack().find(network, box, label, [0, 1])
    assert not hit.any(), "an attack finds it: choose a narrower one"
    proved = Milp().smallest_margins(network, box, label, math.inf)
    assert proved.finished.all()
    assert list(proved.counterexamples) == [0]
    assert proved.margins[0] < 0 < proved.margins[1]
    point = proved.counterexamples[0][None]
    assert ((box.lower[0] <= point) & (point <= box.upper[0])).all()
    assert network.misclassifies(point, label[:1]).all()


@pytest.mark.parametrize("margin", [0.0, 1e-7, -1e-7])
def test_a_margin_within_tolerances_is_left_open(margin: float) -> None:
    """The smallest margin is `margin`, where relu(x0 - 0.5) + relu(0.5 - x0) is zero."""
    first = linear([[1.0, 0.0], [-1.0, 0.0]], [-0.5, 0.5])
    network = nn.Sequential(first, nn.ReLU(), linear([[1.0, 1.0], [0.0, 0.0]], [margin, 0.0])).double()
    box = of_points((0.4, 0.5), eps=0.2)
    proved = Milp().smallest_margins(Network.of(network, (2,)), box, torch.tensor([0]), math.inf)
    assert proved.finished.all()
    assert not (proved.margins > 0).any()
    if margin > 0:
        assert not proved.counterexamples


def test_deadlines() -> None:
    network = Network.of(zoo.make("residual"), zoo.IMAGE)
    images = torch.rand(2, *zoo.IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, box = network.logits(images).argmax(1), Box.linf(images, 0.2)
    for seconds in (0.0, 1.0):
        start = time.perf_counter()
        proved = Milp().smallest_margins(network, box, labels, start + seconds)
        assert time.perf_counter() - start < 5 * seconds + 5
        assert not proved.finished.all()
        assert proved.margins[~proved.finished].isnan().all()
    spec = margin_spec(labels, zoo.CLASSES).double()
    with pytest.raises(OutOfTime):
        exact_minimum(network.graph, network.values[torch.float64], box, spec, deadline=time.perf_counter() + seconds)


def test_curves_are_refused_by_name() -> None:
    network = nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0]]), nn.Tanh())
    with pytest.raises(UnsupportedOperation, match=r"\(Tanh\) at position 2 is not piecewise linear"):
        run(network, points((0.5, 0.7)), 0.1, "milp")


def test_options() -> None:
    (plain,), (other,) = resolve("milp"), choose(["mine"], {"mine": {"name": "milp", "relaxation": "ibp"}})
    assert plain.describe().startswith("milp: Milp(relaxation=DeepPoly(")
    assert other.describe() == "mine: Milp(relaxation=IBP())"
    assert plain == choose(["milp"], {"milp": {"name": "milp", "relaxation": "deeppoly"}})[0]


@pytest.mark.parametrize(
    ("name", "node", "message"),
    [
        ("milp", {"name": "milp", "gap": 1}, "verifier.milp: verifier milp has no option 'gap': relaxation"),
        ("milp", {"name": "milp", "backend": "native"}, "verifier.milp: verifier milp has no option 'backend'"),
        ("milp", {"name": "milp", "relaxation": "ibq"}, "verifier.milp: unknown relaxation 'ibq'"),
        ("milp", {"name": "milp", "relaxation": 3}, "verifier.milp: relaxation must be one with pre-activation"),
        (
            "milp",
            {"name": "milp", "relaxation": "intersection"},
            "verifier.milp: relaxation must be one with pre-activation",
        ),
        ("milp", {"name": "deeppoly"}, "what DeepPoly.* would be reported as milp"),
        ("ibp", {"name": "milp"}, "what Milp.* would be reported as ibp"),
    ],
)
@pytest.mark.usefixtures("as_users_call")
def test_mistakes_are_one_line(name: str, node: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(["deeppoly"], {name: node})
