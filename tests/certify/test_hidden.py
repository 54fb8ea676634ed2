"""Counterexamples that attacks miss: nobody may verify such an image, and who is complete finds one."""

import time

import pytest
import torch
from certify.hidden import EPS, Hidden, hidden

from certtrain.bounds import relaxations
from certtrain.certify import Attack, certify
from certtrain.certify.verifiers import resolve
from certtrain.certify.verifiers.registry import VERIFIERS

SEEDS = (0, 2)
SECONDS = 120.0


@pytest.fixture(scope="module", params=SEEDS)
def case(request: pytest.FixtureRequest) -> Hidden:
    return hidden(request.param)


def test_it_is_hidden(case: Hidden) -> None:
    """From the default attack, also with other random starts; and there."""
    assert case.network.misclassifies(case.counterexample, case.label).all()
    assert ((case.box.lower <= case.counterexample) & (case.counterexample <= case.box.upper)).all()
    for seed in range(10):
        _, found = Attack(seed=seed).find(case.network, case.box, case.label, [0])
        assert not found.any(), f"with seed {seed} the attack finds one: the training must hide it better"
    share = torch.rand(4000, case.image.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = case.box.lower + (case.box.upper - case.box.lower) * share
    assert (case.network.margins(points, case.label.expand(4000)) > 0).double().mean() > 0.99


def test_nobody_verifies_it(case: Hidden) -> None:
    verifiers = (*relaxations(), *VERIFIERS)
    (verdict,) = certify(
        case.network.module, case.image.float(), case.label, EPS, relaxations=verifiers, timeout_s=SECONDS
    )
    assert verdict.correct
    assert verdict.status != "verified"
    assert all(margin is None or margin <= 0 for margin in verdict.margins.values())


@pytest.mark.parametrize("name", VERIFIERS)
def test_who_is_complete_falsifies_it(case: Hidden, name: str) -> None:
    (verifier,) = resolve(name)
    proved = verifier.smallest_margins(case.network, case.box, case.label, time.perf_counter() + SECONDS)
    assert proved.finished.all()
    point = proved.counterexamples[0][None]
    assert ((case.box.lower <= point) & (point <= case.box.upper)).all()
    assert case.network.misclassifies(point, case.label).all()
