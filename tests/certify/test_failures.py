"""What goes wrong with an image has a name, and costs no other image its verdict."""

from dataclasses import dataclass

import pytest
import torch
import zoo
from certify.fakes import ALL, Scripted, constant, diagonal, paired, points, raising, run
from torch import Tensor

from certtrain.bounds import Box, build
from certtrain.certify import Attack
from certtrain.certify.verifiers import RelaxationVerifier, memory
from certtrain.errors import UnsupportedOperation
from certtrain.networks import trace

NO_ATTACK = Attack(steps=0)
OOM = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_nan_weights_are_an_error():
    model = diagonal()
    model[0].weight.data[0, 0] = torch.nan
    (verdict,) = run(model, points((0.9, 0.1)), 0.1)
    assert (verdict.status, verdict.predicted, verdict.margin) == ("error", None, None)
    assert verdict.message == "prediction: non-finite outputs"


def test_bounds_that_are_not_finite_are_an_error_although_outputs_are():
    model = paired()
    model[0].weight.data[2, 1] = -torch.inf
    (verdict,) = run(model, points((0.5, 0.2)), 0.1, "ibp", "crown_ibp")
    assert (verdict.status, verdict.predicted) == ("error", 0)
    assert verdict.margins == {"ibp": None, "crown_ibp": None}
    assert "ibp: non-finite" in verdict.message
    assert "crown_ibp: non-finite" in verdict.message


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_verifier_without_finite_margins_does_not_spoil_the_proof_of_another(value: float):
    (verdict,) = run(diagonal(), points((0.9, 0.1)), 0.1, ("broken", constant(value)), "ibp")
    assert (verdict.status, verdict.verified_by, verdict.margins["broken"]) == ("verified", "ibp", None)


def test_an_exception_costs_only_the_images_that_raise_it():
    inputs = points((0.9, 0.1), (0.55, 0.5), (0.52, 0.5))
    boom = raising(ValueError("boom\nat length"), when=lambda box: bool((box.lower[:, 0] < 0.46).any()))
    robust, other, bad = run(diagonal(), inputs, 0.07, ("boom", boom), "ibp", attack=NO_ATTACK)
    assert (robust.status, robust.margins["boom"]) == ("verified", -1.0)
    assert (other.status, other.margins["boom"]) == ("unknown", -1.0)
    assert (bad.status, bad.margins["boom"], bad.message) == ("error", None, "boom: ValueError: boom")
    assert bad.margins["ibp"] == pytest.approx(-0.12)


def test_an_exception_is_an_error_only_without_other_evidence():
    inputs = points((0.9, 0.1), (0.6, 0.5), (0.53, 0.5))
    statuses = [v.status for v in run(diagonal(), inputs, 0.06, ("boom", raising(ValueError("boom"))), "ibp")]
    assert statuses == ["verified", "falsified", "falsified"]
    statuses = [v.status for v in run(diagonal(), inputs, 0.06, ("boom", raising(ValueError("boom"))))]
    assert statuses == ["error", "falsified", "falsified"]


def test_a_verifier_that_refuses_the_network_ends_the_run_before_any_verdict():
    class Refusing(Scripted):
        def bound(self, graph, params, box, spec=None, sides="both"):
            raise UnsupportedOperation("no rule for this")

    with pytest.raises(UnsupportedOperation, match="no rule for this"):
        run(diagonal(), points((0.9, 0.1)), 0.1, ("refusing", Refusing(lambda box: torch.ones(len(box)))))


def test_an_attack_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch):
    def fail(*args):
        raise ValueError("broken attack")

    monkeypatch.setattr(Attack, "find", fail)
    verdicts = run(diagonal(), points((0.9, 0.1), (0.6, 0.5)), 0.1)
    assert [v.status for v in verdicts] == ["verified", "error"]
    assert verdicts[1].message == "attack: ValueError: broken attack"


def test_keyboard_interrupt_passes_through():
    with pytest.raises(KeyboardInterrupt):
        run(diagonal(), points((0.9, 0.1)), 0.1, ("stop", raising(KeyboardInterrupt())))


def test_exhausted_memory_halves_the_batch():
    sizes = []

    def crowded(box: Box) -> bool:
        sizes.append(len(box))
        return len(box) > 2

    verdicts = run(diagonal(), points(*[(0.9, 0.1)] * 11), 0.1, ("greedy", raising(OOM, crowded)), "ibp")
    assert [v.status for v in verdicts] == ["verified"] * 11
    assert all(v.margins["greedy"] == -1.0 for v in verdicts)
    assert sizes == [11, 6, 3, 2, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("error", [OOM, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_one_image_that_exhausts_memory_is_oom(error: Exception):
    inputs = points((0.9, 0.1), (0.52, 0.5))
    verdicts = run(diagonal(), inputs, 0.07, ("greedy", raising(error)), ("no", constant(-1.0)), attack=NO_ATTACK)
    assert [v.status for v in verdicts] == ["oom", "oom"]
    assert verdicts[0].margins == {"greedy": None, "no": -1.0}
    assert verdicts[0].message.startswith("greedy: ")


def test_a_verifier_is_not_tried_where_memory_cannot_suffice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "BYTES", 10**12)
    monkeypatch.setattr("certtrain.certify.pipeline.available_bytes", lambda device: 2**30)
    (verdict,) = run(diagonal(), points((0.9, 0.1)), 0.1, "zonotope")
    assert (verdict.status, verdict.margins) == ("oom", {"zonotope": None})
    assert "1024 MiB are free" in verdict.message


def test_batches_follow_the_memory_budget():
    graph = trace(zoo.make("strided"), zoo.IMAGE)
    need = {name: memory.bytes_of_bounds(build(name), graph) for name in ALL}
    # Native rows are carried back in pieces, those of an unknown relaxation perhaps all together.
    assert need["ibp"] < need["deeppoly"] < memory.bytes_of_bounds(constant(1.0), graph)
    assert need["deeppoly"] == need["crown_ibp"] == need["hbox"] == need["zonotope"]
    hbox, ibp = (RelaxationVerifier(name, build(name)) for name in ("hbox", "ibp"))
    assert hbox.images_at_once(graph, 10 * need["hbox"], 100) == 10
    assert hbox.images_at_once(graph, 1, 100) == 1
    assert ibp.images_at_once(graph, 2**40, 100) == 100


@dataclass
class Clock:
    """A clock that only `slow` moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def slow(self, box: Box) -> Tensor:
        self.now += 6.0
        return torch.full((len(box),), -1.0)


def test_time_that_is_used_up_is_a_timeout(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr("certtrain.certify.batching.perf_counter", clock)
    inputs, slow = points((0.9, 0.1), (0.6, 0.5), (0.2, 0.8)), ("slow", Scripted(clock.slow))
    verdicts = run(diagonal(), inputs, 0.1, slow, "ibp", timeout_s=2.0)
    assert [v.status for v in verdicts] == ["timeout", "falsified", "misclassified"]
    assert set(verdicts[0].margins) == {"slow"}
    assert [v.seconds for v in verdicts] == [3.0, 3.0, 0.0], "a batch's time is shared by its images"
    (decided,) = run(diagonal(), inputs[:1], 0.1, "ibp", slow, "hbox", timeout_s=2.0)
    assert (decided.status, set(decided.margins)) == ("verified", {"ibp", "slow"})
    (last,) = run(diagonal(), inputs[:1], 0.1, slow, timeout_s=2.0)
    assert last.status == "unknown", "all verifiers ran, so time was not what was missing"
    (patient,) = run(diagonal(), inputs[:1], 0.1, slow, "ibp", timeout_s=7.0)
    assert patient.status == "verified"
