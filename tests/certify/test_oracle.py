"""Every verifier against exact minima of small random networks, and every relaxation's bounds.

Whatever is registered beside relaxations is complete, and must decide every question.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from certtrain.bounds import Box, build, relaxations
from certtrain.certify import Proved, Verifier
from certtrain.certify.network import Network
from certtrain.certify.verifiers import resolve
from certtrain.certify.verifiers.registry import VERIFIERS
from certtrain.networks import Graph
from certtrain.testing import compare_with_oracle, oracle_question

FEW, MANY = range(20), range(1000, 1300)
SECONDS = 60.0


def check_complete(name: str, seeds: range) -> None:
    (verifier,) = resolve(name)
    found = compare_with_oracle(verifier, seeds, SECONDS)
    assert not found.left_open
    assert set(found.verified) == {seed for seed in seeds if oracle_question(seed).minimum > 0}


@pytest.mark.parametrize("name", VERIFIERS)
def test_complete_verifiers_decide_every_question(name: str) -> None:
    check_complete(name, FEW)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", VERIFIERS)
def test_complete_verifiers_decide_many_questions(name: str) -> None:
    check_complete(name, MANY)


@pytest.mark.parametrize("name", relaxations())
def test_no_relaxation_claims_more_than_there_is(name: str) -> None:
    relaxation, (verifier,) = build(name), resolve(name)
    for seed in FEW:
        question = oracle_question(seed)
        values = question.network.values[torch.float64]
        found = relaxation.bound(question.network.graph, values, question.box, question.spec)
        assert float(found.lower.amin()) <= question.minimum + 1e-9
        assert found.upper is not None
        assert float(found.upper.amin()) >= question.minimum - 1e-9
    compare_with_oracle(verifier, FEW)


def test_questions_are_varied_and_hard() -> None:
    questions = [oracle_question(seed) for seed in FEW]
    robust = sum(question.minimum > 0 for question in questions)
    assert 5 <= robust <= 15
    assert max(question.undecided for question in questions) > 20
    assert {len(question.network.graph.input_shape) for question in questions} == {1, 3}
    (verifier,) = resolve("ibp")
    assert len(compare_with_oracle(verifier, FEW).verified) < robust / 2


@dataclass(frozen=True)
class Says(Verifier):
    """Always the same."""

    margin: float = -1.0
    point: str = "none"

    def smallest_margins(self, network: Network, box: Box, labels: Tensor, deadline: float) -> Proved:
        points = {"none": {}, "center": {0: box.center[0]}, "outside": {0: box.upper[0] + 1}}
        finished = torch.ones(1, dtype=torch.bool)
        return Proved(torch.full((1,), self.margin, dtype=torch.float64), finished, points[self.point])

    def bytes_per_image(self, graph: Graph) -> int:
        return 1

    def check(self, network: Network, images: Tensor) -> None:
        return

    def options(self) -> str:
        return self.point


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (Says("bold", margin=100.0), "bold on seed 0, whose smallest margin is .*: it claims 100"),
        (Says("rash", point="center"), "its counterexample has margin"),
        (Says("lost", point="outside"), "its counterexample is outside the box"),
    ],
)
def test_who_is_wrong_is_told(verifier: Verifier, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        compare_with_oracle(verifier, [0])
