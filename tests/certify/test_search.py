"""Branch and bound as a verifier: verdicts, counterexamples, and what ends a search."""

import math
import time

import pytest
import torch
from certify.fakes import diagonal, linear, paired, points, run, spike
from certify.search_cases import NO_DESCENT, decide, random_network, root_of, uniform
from torch import Tensor, nn

from certtrain.bounds import Box, margin_spec
from certtrain.bounds.relaxation.alpha_crown import AlphaCrown
from certtrain.certify import Attack, Proved
from certtrain.certify.milp import exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.search import Effort, Pool, Search
from certtrain.certify.verifiers import choose, resolve
from certtrain.certify.verifiers.bab import Bab
from certtrain.errors import ConfigError
from certtrain.testing import oracle_question
from certtrain.testing.oracle import OracleQuestion

NO_ATTACK = Attack(steps=0)


def ask(module: nn.Module, box: Box, label: int = 0, seconds: float = math.inf, **options: object) -> Proved:
    """Asks about every image of a box, and checks all that is said of them."""
    network, labels = Network.of(module, box.lower.shape[1:]), torch.full((len(box),), label)
    found = Bab(**options).smallest_margins(network, box, labels, time.perf_counter() + seconds)
    for image, point in found.counterexamples.items():
        assert point.dtype == torch.float64
        assert (box.lower[image] <= point).all()
        assert (point <= box.upper[image]).all()
        assert network.misclassifies(point[None], labels[:1]).all()
        assert found.margins[image] <= 0
    return found


def of_points(*rows: tuple[float, float], eps: float | Tensor) -> Box:
    return Box.linf(points(*rows).double(), eps)


def hinge(margin: float) -> nn.Module:
    """Label 0 leads by margin + relu(x0 - 0.5): one neuron, and where it is inactive the margin does not change."""
    return nn.Sequential(linear([[1.0, 0.0]], [-0.5]), nn.ReLU(), linear([[1.0], [0.0]], [margin, 0.0]))


def level(margin: float) -> nn.Module:
    """Label 0 leads by margin + relu(x0 - 0.5) - relu(0.5 - x0) - x0 + 0.5, which is `margin` everywhere."""
    first = linear([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], [-0.5, 0.5, 1.0])
    return nn.Sequential(first, nn.ReLU(), linear([[1.0, -1.0, -1.0], [0.0, 0.0, 0.0]], [margin + 1.5, 0.0]))


@pytest.mark.parametrize("make", [hinge, level])
@pytest.mark.parametrize("margin", [1e-2, 1e-4, 1e-5, -1e-5, -1e-4, -1e-2])
def test_one_neuron_is_decided_close_to_zero(make, margin: float) -> None:
    proved = ask(make(margin), of_points((0.5, 0.5), eps=0.2))
    assert proved.finished.all()
    assert bool(proved.margins[0] > 0) is (margin > 0)
    assert bool(proved.counterexamples) is (margin < 0)


@pytest.mark.parametrize("make", [hinge, level])
def test_a_margin_of_zero_is_never_verified(make) -> None:
    network, box = Network.of(make(0.0), (2,)), of_points((0.5, 0.5), eps=0.2)
    assert not (Bab().smallest_margins(network, box, torch.tensor([0]), math.inf).margins > 0).any()


def test_verdicts_by_hand() -> None:
    # 0.1 + relu(x1 - 0.5), behind two terms that cancel.
    proved = ask(paired(), of_points((0.5, 0.7), (0.5, 0.5), eps=0.1))
    assert 0 < proved.margins[0] <= 0.2 + 1e-6
    assert 0 < proved.margins[1] <= 0.1 + 1e-6
    # Without anything to split.
    proved = ask(diagonal(), of_points((0.9, 0.1), (0.55, 0.5), eps=0.1))
    assert proved.margins.tolist() == pytest.approx([0.6, -0.15])
    assert list(proved.counterexamples) == [1]


def test_a_counterexample_is_found_without_attack_or_descent() -> None:
    """A wedge around x0 = 0.6, to which no gradient points; splitting alone finds it, too."""
    box = of_points((0.5, 0.5), (0.3, 0.5), eps=0.2)
    for width in (0.05, 0.01):
        proved = ask(spike(width), box)
        assert list(proved.counterexamples) == [0]
        assert proved.margins[0] < 0 < proved.margins[1]
    network = Network.of(spike(0.05), (2,))
    goals = Goals.margins(margin_spec(torch.tensor([0]), 2)[0].double())
    found = decide(network, box[slice(0, 1)], goals, effort=NO_DESCENT)
    assert found.ending == "counterexample"


def test_radii_may_differ_from_image_to_image() -> None:
    eps = torch.tensor([0.05, 0.2, 0.0]).double()[:, None]
    proved = ask(spike(0.05), of_points((0.5, 0.5), (0.5, 0.5), (0.6, 0.5), eps=eps))
    assert list(proved.counterexamples) == [1, 2]
    assert proved.margins[0] > 0


@pytest.mark.parametrize("where", [0, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("bias", [0.0, 5.0])
@pytest.mark.parametrize("seconds", [math.inf, 0.0])
def test_what_is_not_finite_claims_nothing(where: int, value: float, bias: float, seconds: float) -> None:
    """Also where all neurons are decided and nothing is split, and where time is over."""
    module = nn.Sequential(
        linear([[1.0, 0.0], [1.0, -1.0]], [bias, bias]), nn.ReLU(), linear([[1.0, 0.0], [0.0, 0.0]], [9.0, 0.0])
    )
    module[where].weight.data[0, 0] = value
    proved = ask(module, of_points((0.5, 0.7), eps=0.3), seconds=seconds)
    assert not (proved.margins > 0).any()
    assert not proved.counterexamples
    assert run(module, points((0.5, 0.7)), 0.3, "bab", attack=NO_ATTACK)[0].status != "verified"


def test_numbers_that_float32_does_not_hold() -> None:
    """A search in which margins overflow claims nothing."""
    module = nn.Sequential(linear([[1e30, 0.0], [0.0, 1e30]]), nn.ReLU(), linear([[1e30, 1e30], [0.0, 0.0]]))
    goals = Goals.margins(margin_spec([0], 2)[0].double())
    found = decide(Network.of(module, (2,)), of_points((0.5, 0.5), eps=0.1), goals)
    assert found.ending == "exhausted"
    assert not found.lower > 0


def test_counterexamples_lie_in_the_box_whatever_float32_can_hold() -> None:
    """Pixels without width, and so narrow that no float32 number is inside."""
    torch.manual_seed(0)
    network = random_network(3, inputs=6)
    center, found = uniform(6, seed=0), 0
    radius = torch.tensor([0.4, 0.0, 1e-12, 0.4, 1e-9, 0.4]).double()
    for label in range(3):
        box = Box((center - radius)[None], (center + radius)[None])
        found += len(ask(network.module, box, label).counterexamples)
        # The whole box: a point whose coordinates are no float32 numbers.
        point = Box(center[None], center[None])
        proved = ask(network.module, point, label)
        margin = network.margins(center[None], torch.tensor([label])).amin()
        assert proved.margins[0] == pytest.approx(float(margin), abs=1e-5)
        found += len(proved.counterexamples)
    assert found >= 3


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.LeakyReLU(0.1), nn.Hardtanh()])
def test_other_activations_leave_open_what_splits_of_relus_cannot_decide(activation: nn.Module) -> None:
    """Then the margin is a true lower bound that is not positive."""
    endings = set()
    for seed in range(12):
        network = random_network(seed, activation=activation)
        box = Box.linf(uniform(1, 3, seed=seed), 0.25)
        label = network.logits(box.center).argmax(1)
        goals = Goals.margins(margin_spec(label, 3)[0].double())
        found = decide(network, box, goals)
        endings.add(found.ending)
        x = box.lower + (box.upper - box.lower) * uniform(3000, 3, seed=seed)
        lowest = float(network.margins(x, label.expand(3000)).amin())
        assert found.lower <= lowest + 1e-6
        assert (found.lower > 0) is (found.ending == "closed")
        if found.ending == "closed":
            assert lowest > 0
    assert endings <= {"closed", "exhausted", "counterexample"}
    assert len(endings) > 1


def test_a_maximum_beside_relus() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)
    )
    box = Box.linf(uniform(1, 1, 5, 5, seed=0), 0.3)
    network = Network.of(module.requires_grad_(False), (1, 5, 5))
    x = box.lower + (box.upper - box.lower) * uniform(2000, 1, 5, 5, seed=1)
    for label in range(3):
        proved = ask(module, box, label, seconds=30)
        assert proved.margins[0] <= network.margins(x, torch.full((2000,), label)).amin() + 1e-6


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_deadlines_are_kept(seconds: float) -> None:
    """Whatever is going on; nothing is claimed of what was not finished."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(20, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Linear(200, 3))
        module[-1].bias.data[0] += 1.5
    box = Box.linf(uniform(2, 20, seed=0), 0.3)
    start = time.perf_counter()
    proved = ask(module, box, seconds=seconds)
    assert time.perf_counter() - start < 1.1 * seconds + 1
    assert not proved.finished.any()
    assert proved.margins.isnan().all()


def test_time_is_looked_at_in_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts how often it is read: the search stops at the first look after the deadline.

    Once more it is read for how long the search took.
    """
    network, box, goals = hard()
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return float(asked)

    monkeypatch.setattr("certtrain.deadline.time.perf_counter", clock)
    assert decide(network, box, goals, deadline=1e9).ending == "closed"
    passes, asked = asked, 0
    assert passes > 20
    found = decide(network, box, goals, deadline=passes - 2.5)
    assert found.ending == "time"
    assert asked == passes - 1
    assert not found.lower > 0


def hard() -> tuple[Network, Box, Goals]:
    """Margins close to their limits: closed after many splits."""
    network, box = random_network(1), Box.linf(uniform(1, 3, seed=1), 0.5)
    spec = margin_spec(network.logits(box.center).argmax(1), 3).double()
    minimum = exact_minimum(network.graph, network.values[torch.float64], box, spec).upper
    return network, box, Goals.margins(spec[0], minimum[0] - 0.01)


def test_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is open counts; a verifier says that memory was not enough, as any other does."""
    network, box, goals = hard()
    whole = decide(network, box, goals)
    assert whole.ending == "closed"
    assert 0 < whole.lower <= 0.01 + 1e-6
    monkeypatch.setattr(Pool, "nbytes", property(lambda pool: 1 << 40))
    found = decide(network, box, goals)
    assert found.ending == "memory"
    assert not found.lower > 0
    assert found.examined < whole.examined
    question = next(q for q in map(oracle_question, range(20)) if q.minimum > 0 and needs_splits(q))
    with pytest.raises(MemoryError, match="not enough memory"):
        Bab().smallest_margins(question.network, question.box, question.label, math.inf)


def needs_splits(question: OracleQuestion) -> bool:
    values = question.network.values[torch.float64]
    found = AlphaCrown(iterations=60).bound(question.network.graph, values, question.box, question.spec, "lower")
    return bool(found.lower.amin() < 0)


def test_batches_fit_into_memory() -> None:
    """Rows of all candidates' children, of the largest network; the answer does not depend on it."""
    network, box, goals = hard()
    expected = decide(network, box, goals)
    for batch in (1, 3):
        found = decide(network, box, goals, effort=Effort(batch=batch, candidates=2))
        assert (found.ending, expected.ending) == ("closed", "closed")
        assert found.lower <= 0.01 + 1e-6
    root = root_of(network, box, goals)
    assert Search(root, memory=1).run().ending == "memory"


def test_options() -> None:
    (plain,), (other,) = resolve("bab"), choose(["mine"], {"mine": {"name": "bab", "batch": 7}})
    assert plain.describe().startswith("bab: Bab(name='bab', iterations=10, batch=256, candidates=4, memory_mb=1024")
    assert "batch=7" in other.describe()
    assert plain.images_at_once(Network.of(paired(), (2,)).graph, 1 << 40, 100) == 1


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"batch": 0}, "verifier.bab: batch must be a whole number of at least 1, got 0"),
        ({"candidates": 1.5}, "verifier.bab: candidates must be a whole number of at least 1, got 1.5"),
        ({"memory_mb": True}, "verifier.bab: memory_mb must be a whole number of at least 1, got True"),
        ({"iterations": -1}, "verifier.bab: .*iterations must be a whole number >= 0, got -1"),
        ({"steps": 3}, "verifier.bab: verifier bab has no option 'steps': iterations, batch, candidates, memory_mb"),
    ],
)
@pytest.mark.usefixtures("as_users_call")
def test_mistakes_are_one_line(node: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        choose(["deeppoly"], {"bab": {"name": "bab", **node}})
    assert "\n" not in str(caught.value)
