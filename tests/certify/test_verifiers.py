"""Verifiers: an interface with options, a deadline and an estimate of memory; a relaxation is one kind."""

import math
import time
from dataclasses import dataclass, field

import pytest
import torch
import zoo
from certify.fakes import Scripted as Fake
from certify.fakes import diagonal, points, run
from torch import Tensor

from certtrain.bounds import Box, build, margin_spec
from certtrain.certify import Attack, Proved, RelaxationVerifier, Verifier, certify
from certtrain.certify.network import Network
from certtrain.certify.verifiers import choose, resolve
from certtrain.certify.verifiers.memory import bytes_of_bounds
from certtrain.deadline import OutOfTime, check_deadline, until
from certtrain.errors import ConfigError
from certtrain.networks import Graph

NO_ATTACK = Attack(steps=0)


@dataclass(frozen=True)
class Scripted(Verifier):
    """Proves a margin of one everywhere but on the first image of a batch, on which it runs out of time."""

    kind: str = "whole"
    bytes: int = 1
    seen: list[tuple[int, float]] = field(default_factory=list)

    def smallest_margins(self, network: Network, box: Box, labels: Tensor, deadline: float) -> Proved:
        self.seen.append((len(box), deadline - time.perf_counter()))
        finished = torch.ones(len(box), dtype=torch.bool)
        finished[0] = self.kind == "whole"
        return Proved(torch.ones(len(box), dtype=torch.float64), finished)

    def bytes_per_image(self, graph: Graph) -> int:
        return self.bytes

    def check(self, network: Network, images: Tensor) -> None:
        return

    def options(self) -> str:
        return self.kind


def test_what_is_not_finished_proves_nothing() -> None:
    inputs = points((0.9, 0.1), (0.8, 0.1))
    first, second = run(diagonal(), inputs, 0.01, Scripted("torn", "torn"), attack=NO_ATTACK, timeout_s=5.0)
    assert (first.status, first.margins, first.failures["torn"].kind) == ("timeout", {"torn": None}, "timeout")
    assert "stopped, 5 s for each image" in first.message
    assert (second.status, second.verified_by) == ("verified", "torn")


def test_a_batch_has_the_time_that_its_images_have_left_together() -> None:
    verifier, endless = Scripted("any"), Scripted("any")
    run(diagonal(), points((0.9, 0.1), (0.8, 0.1)), 0.01, verifier, attack=NO_ATTACK, timeout_s=100.0)
    run(diagonal(), points((0.9, 0.1)), 0.01, endless, attack=NO_ATTACK)
    ((images, seconds),) = verifier.seen
    assert images == 2
    assert 150 < seconds <= 200
    assert endless.seen[0][1] == math.inf


def test_its_own_estimate_of_memory_decides_its_batches() -> None:
    verifier = Scripted("any", bytes=2**20)
    run(diagonal(), points(*[(0.9, 0.1)] * 8), 0.01, verifier, attack=NO_ATTACK, memory_mb=3)
    assert [images for images, _ in verifier.seen] == [3, 3, 2]


@pytest.mark.parametrize("name", ["alpha_crown", "crown_ibp", "deeppoly", "hbox", "zonotope"])
@pytest.mark.parametrize("executor", ["auto", "tensors"])
def test_a_relaxation_stops_at_the_deadline(name: str, executor: str) -> None:
    network = Network.of(zoo.make("strided"), zoo.IMAGE)
    images = torch.rand(2, *zoo.IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = network.logits(images).argmax(1)
    verifier = RelaxationVerifier("any", build(name, executor=executor))
    box = Box.linf(images, 1e-4)
    late = verifier.smallest_margins(network, box, labels, time.perf_counter())
    assert not late.finished.any()
    assert not (late.margins > 0).any()
    early = verifier.smallest_margins(network, box, labels, time.perf_counter() + 1000)
    assert early.finished.all()
    expected = verifier.relaxation.bound(
        network.graph, network.values[torch.float64], box, margin_spec(labels, network.graph.num_outputs).double()
    )
    torch.testing.assert_close(early.margins, expected.lower.amin(1))


@pytest.mark.parametrize("executor", ["auto", "tensors"])
def test_time_is_looked_at_between_pieces_of_work(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.of(zoo.make("strided"), zoo.IMAGE)
    images = torch.rand(2, *zoo.IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    verifier = RelaxationVerifier("any", build("deeppoly", executor=executor))
    question = network, Box.linf(images, 0.05), network.logits(images).argmax(1)
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return float(asked)

    monkeypatch.setattr("certtrain.deadline.time.perf_counter", clock)
    assert verifier.smallest_margins(*question, deadline=1e9).finished.all()
    pieces = asked
    assert pieces > 2
    assert not verifier.smallest_margins(*question, deadline=pieces + 1.5).finished.any()
    assert asked == pieces + 2, "it stops at the first look after the deadline"


def test_a_failure_stays_one_where_repeating_it_takes_all_the_time() -> None:
    def broken(box: Box) -> Tensor:
        time.sleep(0.2)
        raise ValueError("defect")

    verdicts = run(
        diagonal(), points((0.9, 0.1), (0.8, 0.1)), 0.01, ("broken", Fake(broken)), attack=NO_ATTACK, timeout_s=0.1
    )
    assert [v.failures["broken"].kind for v in verdicts] == ["error", "error"]
    assert "defect" in verdicts[0].message


def test_of_nested_deadlines_the_earliest_counts() -> None:
    check_deadline()
    with until(math.inf):
        check_deadline()
        with until(time.perf_counter() - 1), until(time.perf_counter() + 100), pytest.raises(OutOfTime):
            check_deadline()
        check_deadline()


def test_a_relaxation_says_what_it_takes() -> None:
    network = Network.of(zoo.make("strided"), zoo.IMAGE)
    verifier = RelaxationVerifier("any", build("ibp"))
    assert verifier.bytes_per_image(network.graph) == bytes_of_bounds(build("ibp"), network.graph)


@pytest.mark.parametrize("name", ["", "attack", "prediction", "a: b"])
def test_names_that_would_be_taken_for_something_else_are_refused(name: str) -> None:
    for verifier in (RelaxationVerifier(name, build("ibp")), Scripted(name)):
        with pytest.raises(ConfigError, match="cannot be named"):
            resolve([verifier])


@pytest.mark.parametrize("given", [("ibp", build("deeppoly")), ("DeepPoly", build("ibp")), Scripted("hbox")])
def test_the_name_of_a_relaxation_is_a_promise(given: object) -> None:
    with pytest.raises(ConfigError, match="would be reported as"):
        resolve([given])


def test_options_change_what_is_computed_and_how_it_is_described() -> None:
    zero = {"name": "deeppoly", "backend": "native", "lower_slope": "zero"}
    plain, flat = choose(["deeppoly", "flat"], {"flat": zero})
    assert plain.describe().startswith("deeppoly: DeepPoly(")
    assert flat.describe().startswith("flat: DeepPoly(")
    assert plain.options() != flat.options()
    assert plain.describe() == choose(["deeppoly"], {"deeppoly": {**zero, "lower_slope": "adaptive"}})[0].describe()
    case = zoo.make("strided", dtype=torch.float32)
    images = torch.rand(4, *zoo.IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = case(images).argmax(1)
    verdicts = certify(case, images, labels, 0.05, relaxations=[plain, flat], attack=NO_ATTACK)
    assert all(set(v.margins) == {"deeppoly", "flat"} for v in verdicts)
    assert any(v.margins["deeppoly"] != v.margins["flat"] for v in verdicts)


@pytest.mark.parametrize(
    ("names", "nodes", "message"),
    [
        (["ibq"], {}, r"unknown verifier 'ibq': one of ibp, .*\+relaxation@verifier.ibq"),
        (
            ["ibp"],
            {"ibp": {"name": "deeppoly", "backend": "native"}},
            "verifier.ibp: what DeepPoly.* would be reported as ibp",
        ),
        (
            ["ibp"],
            {"ibp": {"name": "ibp", "backend": "auto_lirpa"}},
            "what AutoLirpa.* would be reported as ibp",
        ),
        (["ibp", "ibp"], {}, "certify.verifiers: two verifiers are named 'ibp'"),
        (
            ["hbox"],
            {"hbox": {"name": "hbox", "lower_slope": "zero"}},
            "verifier.hbox: relaxation hbox has no option 'lower_slope'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(names: list[str], nodes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(names, nodes)
