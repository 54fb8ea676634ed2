"""Networks, boxes and margins that the bound tests share."""

from dataclasses import replace

import pytest
import torch
import zoo

from certtrain.bounds import Intersection, Relaxation, relaxations
from certtrain.bounds.executors import Executor
from certtrain.bounds.executors.compiled.build import compiled
from certtrain.networks import parameters, trace
from certtrain.testing import Subject

# One step of each optimisation: what the tests are about holds after any number, and they are many.
OPTIONS: dict[str, dict] = {"alpha_crown": {"iterations": 1}}
VARIANTS: dict[str, dict] = {name: {"name": name, **OPTIONS.get(name, {})} for name in relaxations()} | {
    "deeppoly_textbook": {"name": "deeppoly", "intersect": False},
    "deeppoly_zero": {"name": "deeppoly", "lower_slope": "zero"},
    "deeppoly_parallel": {"name": "deeppoly", "lower_slope": "parallel"},
    "crown_ibp_one": {"name": "crown_ibp", "lower_slope": "one"},
    "crown_ibp_parallel": {"name": "crown_ibp", "lower_slope": "parallel"},
    "intersection": {"name": "intersection", "parts": ["ibp", "zonotope", "deeppoly"]},
}

# The compiled code is optional: without a compiler tensor operations compute the same, which all other tests check.
needs_compiler = pytest.mark.skipif(compiled(torch.float32) is None, reason="no C compiler works here")


def carried_by(relaxation: Relaxation, executor: str | Executor) -> Relaxation:
    """The same relaxation with another executor, where it carries rows."""
    if isinstance(relaxation, Intersection):
        return Intersection(tuple(carried_by(part, executor) for part in relaxation.parts))
    return replace(relaxation, executor=executor) if hasattr(relaxation, "executor") else relaxation


Case = Subject


def make_case(name: str, seed: int = 0) -> Case:
    network = zoo.make(name, seed)
    inputs = torch.rand((5, *zoo.IMAGE), dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    labels = torch.arange(5) % zoo.CLASSES
    params = {k: v.detach() for k, v in parameters(network).items()}
    return Case(network, trace(network, zoo.IMAGE), params, inputs, labels)
