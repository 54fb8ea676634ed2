"""Theorems that hold for every relaxation, on every layer kind. A new relaxation gets them by being registered."""

from dataclasses import replace
from itertools import pairwise

import pytest
from cases import VARIANTS, Case
from torch import nn

from certtrain.bounds import Relaxation, build, relaxations
from certtrain.bounds.relaxation.ibp import IBP
from certtrain.testing import RELAXATION_CHECKS, Subject, check_relaxation
from certtrain.testing.relaxations import TOLERANCE


@pytest.mark.parametrize("check", RELAXATION_CHECKS)
def test_theory(relaxation: Relaxation, case: Case, check: str) -> None:
    RELAXATION_CHECKS[check](relaxation, case)


OPTIMISES = [name for name in relaxations() if build(name).optimises]
USERS = [pytest.param(name, marks=pytest.mark.slow if name in OPTIMISES else ()) for name in relaxations()]


@pytest.mark.parametrize("name", USERS)
def test_a_users_relaxation_is_checked_with_one_call(name: str) -> None:
    """On the networks that come with the checks, with curved activations among them."""
    check_relaxation(build(**VARIANTS[name]))


class Hopeful(IBP):
    """Lower bounds that are a little too high where the box is large."""

    def bound(self, graph, params, box, spec=None, sides="both"):
        found = super().bound(graph, params, box, spec, sides)
        return replace(found, lower=found.lower + 0.7 * (box.radius.flatten(1).amax(1) > 0.4)[:, None])


class Deaf(IBP):
    """NaN becomes a number."""

    def bound(self, graph, params, box, spec=None, sides="both"):
        found = super().bound(graph, params, box, spec, sides)
        return replace(found, lower=found.lower.nan_to_num(1.0))


class Frozen(IBP):
    """No derivative goes through."""

    def bound(self, graph, params, box, spec=None, sides="both"):
        found = super().bound(graph, params, box, spec, sides)
        return replace(found, lower=found.lower.detach() + 0 * found.lower)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Hopeful, "no_point_of_the_box_leaves_the_bounds"),
        (Deaf, "nan_weights_never_look_certified"),
        (Frozen, "gradients_are_finite_and_right"),
    ],
)
def test_what_is_wrong_is_found(kind: type[Relaxation], check: str) -> None:
    with pytest.raises(AssertionError):
        RELAXATION_CHECKS[check](kind(), Subject.of(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), (2, 3)))


def test_larger_boxes_never_have_tighter_intervals(case: Case) -> None:
    """A theorem for intervals only: slopes chosen by area make the other relaxations only nearly monotone."""
    found = [build("ibp").bound(case.graph, case.params, case.box(e), case.spec) for e in (0.0, 0.01, 0.05, 0.2)]
    for small, large in pairwise(found):
        assert (large.lower <= small.lower + TOLERANCE).all()
        assert (large.upper >= small.upper - TOLERANCE).all()
