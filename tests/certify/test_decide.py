"""`decide`: what is violated has a confirmed counterexample, what is not a proof, and what is open says so."""

import math
import time
from itertools import pairwise

import pytest
import torch
from certify.fakes import linear, spike
from certify.few_inputs import INPUTS, smooth
from certify.hidden import EPS, hidden
from certify.undecided import undecided
from torch import Tensor, nn

import certtrain
from certtrain import Decision, Property
from certtrain.attacks import PGD
from certtrain.bounds import Box
from certtrain.certify import SoundnessError
from certtrain.certify.network import Network
from certtrain.certify.properties import Conjunction, Region
from certtrain.certify.search.search import Outcome
from certtrain.certify.search.whole import BranchAndBound
from certtrain.errors import CerttrainError, ConfigError

CENTER_ONLY = PGD(steps=0, restarts=0)
SECONDS = 60.0


class NoSearch(BranchAndBound):
    """Must not be asked."""

    def decide(self, *arguments: object, **named: object) -> Outcome:
        raise AssertionError("a search was begun")


def identity() -> nn.Module:
    """Outputs are the two inputs."""
    return linear([[1.0, 0.0], [0.0, 1.0]])


def random_network(*widths: int, seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        for layer in layers[::2]:
            layer.weight.data.mul_(2.0)
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def box(lower: list[float], upper: list[float]) -> Box:
    return Box(torch.tensor([lower], dtype=torch.float64), torch.tensor([upper], dtype=torch.float64))


def unsafe(*rows: tuple[list[float], float]) -> Conjunction:
    """All of `row · y <= limit`."""
    coefficients = torch.tensor([row for row, _ in rows], dtype=torch.float64)
    return Conjunction(coefficients, torch.tensor([limit for _, limit in rows], dtype=torch.float64))


def check(found: Decision, property: Property, model: nn.Module) -> None:
    """What every decision must keep to."""
    assert (found.bound > 0) is (found.status == "unsat")
    assert (found.counterexample is not None) is (found.status == "sat")
    assert found.seconds >= 0
    if found.counterexample is not None:
        x, y = found.counterexample
        assert (x.dtype, y.dtype) == (torch.float64, torch.float64)
        assert x.shape == property.input_shape
        torch.testing.assert_close(y.float(), model(x[None].float())[0])
        assert property.violated(x, y)
        assert property.violated(x, Network.traced(model, x.shape).logits(x[None])[0])


# y0 = x0 and y1 = x1, both in [0, 1].
BY_HAND = {
    "y0 <= -0.1": ([([[1.0, 0.0]], [-0.1])], "unsat", 0.1),
    "y0 <= 0.1": ([([[1.0, 0.0]], [0.1])], "sat", None),
    "y0 <= 0, on the boundary": ([([[1.0, 0.0]], [0.0])], "sat", None),
    "y0 <= 0.1 and y1 >= 0.9": ([([[1.0, 0.0], [0.0, -1.0]], [0.1, -0.9])], "sat", None),
    "y0 + y1 <= 0.5 and y0 - y1 >= 0.6": ([([[1.0, 1.0], [-1.0, 1.0]], [0.5, -0.6])], "unsat", None),
    "y0 <= -0.1 or y1 >= 0.9": ([([[1.0, 0.0]], [-0.1]), ([[0.0, -1.0]], [-0.9])], "sat", None),
    "one row, or two": ([([[1.0, 0.0]], [-0.1]), ([[0.0, 1.0], [0.0, -1.0]], [0.2, -0.1])], "sat", None),
    "y0 >= 2, or y0 <= -1 and y1 <= 2": ([([[-1.0, 0.0]], [-2.0]), ([[1.0, 0.0], [0.0, 1.0]], [-1, 2])], "unsat", 1.0),
    "no row: all outputs": ([(torch.zeros(0, 2), torch.zeros(0))], "sat", None),
    "no conjunction: no output": ([], "unsat", math.inf),
    "y0 <= 0 and y0 >= 1": ([([[1.0, 0.0], [-1.0, 0.0]], [0.0, -1.0])], "unsat", math.inf),
    "a contradiction, or y1 >= 0.9": ([([[1.0, 0.0], [-1.0, 0.0]], [0, -1]), ([[0.0, -1.0]], [-0.9])], "sat", None),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("splitting", ["inputs", "neurons"])
def test_by_hand(name: str, splitting: str) -> None:
    given, status, bound = BY_HAND[name]
    property = Property.from_constraints([0.0, 0.0], [1.0, 1.0], given)
    model = identity()
    found = certtrain.decide(model, property, SECONDS, search=BranchAndBound(splitting=splitting))
    assert found.status == status
    check(found, property, model)
    if bound is not None:
        assert found.bound == pytest.approx(bound)


def test_no_region_at_all() -> None:
    found = certtrain.decide(identity(), Property(()))
    assert (found.status, found.counterexample, found.bound) == ("unsat", None, math.inf)


def test_a_disjunction_of_boxes() -> None:
    """Each with its own unsafe outputs: only the last one is violated, and the counterexample lies in it."""
    regions = [
        Region(box([0.0, 0.0], [1.0, 1.0]), (unsafe(([1.0, 0.0], -1.0)), unsafe(([0.0, 1.0], -1.0)))),
        Region(box([2.0, 0.0], [3.0, 1.0]), (unsafe(([1.0, 0.0], 1.5)),)),
        Region(box([5.0, 5.0], [6.0, 6.0]), (unsafe(([1.0, 0.0], 0.5)), unsafe(([-1.0, 0.0], -5.5)))),
    ]
    model = identity()
    found = certtrain.decide(model, Property(tuple(regions)))
    assert found.status == "sat"
    assert 5.5 <= found.counterexample.x[0] <= 6
    check(found, Property(tuple(regions)), model)
    found = certtrain.decide(model, Property(tuple(regions[:2])))
    assert (found.status, found.bound) == ("unsat", pytest.approx(0.5))


def test_boxes_without_width() -> None:
    model = random_network(3, 10, 2)
    x = [0.1, 0.2, 0.3]
    y = model(torch.tensor([x]))[0].tolist()
    for limit, status in ((y[0] - 1e-3, "unsat"), (y[0] + 1e-3, "sat")):
        property = Property.from_constraints(x, x, [([[1.0, 0.0]], [limit])])
        found = certtrain.decide(model, property, SECONDS)
        assert found.status == status
        if status == "sat":
            assert found.counterexample.x.tolist() == x


def test_hundreds_of_regions_are_bounded_at_once() -> None:
    model = random_network(4, 12, 12, 3)
    centers = torch.rand((400, 4), generator=torch.Generator().manual_seed(0)).double()
    lowest = float(model(centers.float())[:, 0].min())
    regions = [Region(Box(c[None] - 1e-3, c[None] + 1e-3), (unsafe(([1.0, 0.0, 0.0], lowest - 1.0)),)) for c in centers]
    found = certtrain.decide(model, Property(tuple(regions)), SECONDS, search=NoSearch())
    assert found.status == "unsat"
    assert 0 < found.bound <= 1.0
    # One of them is violated.
    at = int(model(centers.float())[:, 0].argmin())
    regions[at] = Region(regions[at].box, (unsafe(([1.0, 0.0, 0.0], lowest)),))
    found = certtrain.decide(model, Property(tuple(regions)), SECONDS, search=NoSearch())
    assert found.status == "sat"
    assert (found.counterexample.x - centers[at]).abs().max() <= 1e-3


@pytest.mark.parametrize("splitting", ["inputs", "neurons"])
def test_robustness_as_certify_judges_it(splitting: str) -> None:
    model = random_network(4, 10, 10, 3, seed=1)
    images = torch.rand((12, 4), generator=torch.Generator().manual_seed(0))
    labels, answers = model(images).argmax(1), {"verified": "unsat", "falsified": "sat"}
    statuses = set()
    for eps in (0.02, 0.15):
        verdicts = certtrain.certify(model, images, labels, eps, relaxations="bab")
        for image, label, verdict in zip(images, labels.tolist(), verdicts, strict=True):
            property = Property.robust(image, label, eps, 3)
            found = certtrain.decide(model, property, SECONDS, search=BranchAndBound(splitting=splitting))
            assert found.status == answers[verdict.status]
            check(found, property, model)
            statuses.add(found.status)
    assert statuses == {"sat", "unsat"}


@pytest.mark.parametrize("splitting", ["inputs", "neurons"])
@pytest.mark.parametrize("attack", [PGD(), CENTER_ONLY], ids=["attack", "none"])
def test_hidden_counterexamples_are_found(splitting: str, attack: PGD) -> None:
    case = hidden(0)
    property = Property.robust(case.image[0], 0, EPS, 2)
    search = BranchAndBound(splitting=splitting)
    found = certtrain.decide(case.network.module, property, SECONDS, attack=attack, search=search)
    assert found.status == "sat"
    check(found, property, case.network.module)


def test_a_counterexample_that_no_gradient_shows() -> None:
    model, property = spike(0.01), Property.robust([0.5, 0.5], 0, 0.2, 2)
    found = certtrain.decide(model, property, SECONDS)
    assert found.status == "sat"
    assert found.counterexample.x[0] == pytest.approx(0.6, abs=0.01)
    assert certtrain.decide(model, Property.robust([0.3, 0.5], 0, 0.2, 2), SECONDS).status == "unsat"


@pytest.mark.parametrize("seconds", [0.01, 3.0])
def test_time(seconds: float) -> None:
    model, property = undecided()
    certtrain.decide(model, property, 0.5)  # compiled code is built
    began = time.perf_counter()
    found = certtrain.decide(model, property, seconds)
    assert time.perf_counter() - began < 1.1 * seconds + 1
    assert found.status == "timeout"
    check(found, property, model)


def test_what_is_left_open_is_unknown_with_its_bound() -> None:
    """Sigmoids of many inputs cannot be split."""
    model = random_network(20, 20, 20, 2, activation=nn.Sigmoid)
    region = box([-1.0] * 20, [1.0] * 20)
    bound = certtrain.bound(model, region.to(torch.float32), relaxation="deeppoly", sides="lower").lower[0, 0]
    property = Property((Region(region, (unsafe(([1.0, 0.0], float(bound) + 0.01)),)),))
    found = certtrain.decide(model, property, SECONDS)
    assert found.status == "unknown"
    assert found.bound == pytest.approx(-0.01, abs=5e-3)
    few = Property((Region(box([-0.1] * 2 + [0.5] * 18, [0.1] * 2 + [0.5] * 18), property.regions[0].unsafe),))
    assert certtrain.decide(model, few, SECONDS).status == "unsat"


def test_the_runtime_must_agree() -> None:
    model = identity()
    property = Property.from_constraints([0.0, 0.0], [1.0, 1.0], [([[1.0, 0.0]], [0.1])])
    seen: list[Tensor] = []

    def runtime(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.tensor([1.0, 1.0])

    found = certtrain.decide(model, property, SECONDS, runtime=runtime)
    assert found.status == "unknown"
    assert seen
    assert all(x.shape == (2,) and property.violated(x, x) for x in seen)
    found = certtrain.decide(model, property, SECONDS, runtime=lambda x: x.float() - 1e-3)
    assert found.status == "sat"
    assert torch.equal(found.counterexample.y, (found.counterexample.x.float() - 1e-3).double())

    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("no runtime")

    with pytest.raises(RuntimeError, match="no runtime"):
        certtrain.decide(model, property, SECONDS, runtime=broken)


def test_errors_are_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: object, **named: object) -> None:
        raise MemoryError("no memory")

    model, property = undecided()
    monkeypatch.setattr("certtrain.certify.search.whole.Root.of", exhausted)
    with pytest.raises(MemoryError, match="no memory"):
        certtrain.decide(model, property, SECONDS)


def test_bounds_that_are_not_the_networks_stop_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from certtrain.bounds import Bounds
    from certtrain.bounds.relaxation.deeppoly import DeepPoly

    def shifted(self: DeepPoly, *arguments: object) -> Bounds:
        one = torch.ones((1, 2), dtype=arguments[2].lower.dtype)
        return Bounds(one, one)

    monkeypatch.setattr(DeepPoly, "bound", shifted)
    with pytest.raises(SoundnessError):
        certtrain.decide(identity(), Property.robust([0.5, 0.2], 0, 0.1, 2))


def test_networks_of_any_size_and_mode() -> None:
    """One output, weights in float64, in training mode, under inference mode; the module is as it was."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9), nn.ReLU(), nn.Linear(4, 1)).double().requires_grad_(False)
    lowest = float(model.eval()(torch.rand((100, 3)).double()).min())
    model.train()
    property = Property.from_constraints([0.0] * 3, [1.0] * 3, [([[1.0]], [lowest])])
    with torch.inference_mode():
        found = certtrain.decide(model, property, SECONDS)
    assert found.status == "sat"
    assert model.training
    assert model[1].training
    safe = Property.from_constraints([0.0] * 3, [1.0] * 3, [([[1.0]], [lowest - 10.0])])
    assert certtrain.decide(model, safe, SECONDS).status == "unsat"


def test_a_network_like_acas_xu_in_seconds() -> None:
    """Property 3 there: that one output is the smallest of five, a conjunction of four rows."""
    subject, center = smooth(), [0.2, -0.3, 0.1, 0.4, -0.2]
    region = box([c - 0.4 for c in center], [c + 0.4 for c in center])
    share = torch.rand((20_000, INPUTS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = subject.logits(region.lower + (region.upper - region.lower) * share)
    others = torch.eye(5, dtype=torch.float64)[1:]
    rows = torch.eye(5, dtype=torch.float64)[:1] - others  # y0 <= y_i
    slack = float((outputs @ rows.T).amax(1).min())
    for limit, status in ((slack - 0.2, "unsat"), (slack + 0.02, "sat")):
        property = Property((Region(region, (Conjunction(rows, torch.full((4,), limit).double()),)),))
        found = certtrain.decide(subject.module, property, SECONDS)
        assert found.status == status
        check(found, property, subject.module)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.weight.data.fill_(math.nan), "'weight' of the network is not finite"),
        (lambda m: m.bias.data.fill_(math.inf), "'bias' of the network is not finite"),
    ],
)
def test_weights_that_are_not_finite_are_refused(change: object, message: str) -> None:
    model = identity()
    change(model)
    with pytest.raises(ConfigError, match=message):
        certtrain.decide(model, Property.robust([0.5, 0.2], 0, 0.1, 2))


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    property = Property.robust([0.5, 0.2], 0, 0.1, 2)
    for arguments, message in (
        ((identity(), Property.robust([0.5, 0.2], 0, 0.1, 3)), "the property is about 3 outputs, the network has 2"),
        ((identity(), property, -1.0), "timeout_s must be a positive number of seconds"),
        ((identity(), property, math.nan), "timeout_s must be a positive number of seconds"),
        (
            (identity(), Property((Region(box([0.0, 0.0], [1e39, 1.0]), ()),))),
            "region 0 of the property has inputs beyond",
        ),
        ((nn.Linear(3, 2), property), "the network does not accept inputs of shape"),
    ):
        with pytest.raises(CerttrainError, match=message) as raised:
            certtrain.decide(*arguments)
        assert "\n" not in str(raised.value)
