"""An operation without a rule is refused by name and position, whatever walks over the graph."""

from dataclasses import dataclass, replace

import pytest
import torch
import zoo
from lirpa_cases import needs_auto_lirpa

from certtrain.bounds import Box, Given, Relaxation, build, relaxations
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.bounds.substitution.preactivation import Hidden
from certtrain.bounds.substitution.rows_of_spec import analyse_rows
from certtrain.certify.verifiers.memory import bytes_of_bounds
from certtrain.errors import UnsupportedOperation
from certtrain.networks import Graph, parameters, trace
from certtrain.networks.ops import Op


@dataclass(frozen=True)
class Unknown(Op):
    """An operation that nobody has a rule for."""


def planted(graph: Graph) -> Graph:
    """The same network with an unknown operation behind its second one."""
    new = Unknown("strange", (1,), graph.ops[1].shape)

    def moved(op: Op) -> Op:
        return replace(op, inputs=tuple(2 if i == 1 else i + (i > 1) for i in op.inputs))

    return replace(graph, ops=(*graph.ops[:2], new, *map(moved, graph.ops[2:])))


@pytest.mark.parametrize("way", ["evaluation", *relaxations(), "tensors", "memory", "memory of others"])
def test_an_operation_without_a_rule_is_refused_in_every_traversal(way: str) -> None:
    network = zoo.make("strided")
    graph, inputs = planted(trace(network, zoo.IMAGE)), torch.rand((2, *zoo.IMAGE), dtype=torch.float64)
    params = parameters(network)
    box = Box.linf(inputs, 0.1)

    def walk() -> None:
        match way:
            case "evaluation":
                graph.forward(params, inputs)
            case "memory":
                bytes_of_bounds(build("deeppoly"), graph)
            case "memory of others":
                bytes_of_bounds(_Opaque(), graph)
            case "tensors":
                substitution = DeepPoly(executor="tensors").substitution(graph, params, box, Given())
                analyse_rows(substitution, None, Hidden({}, {}), "lower")
            case _:
                build(way).bound(graph, params, box)

    with pytest.raises(UnsupportedOperation, match=r"'strange' \(Unknown\) at position 2 has no rule for"):
        walk()


class _Opaque(Relaxation):
    """One that the estimate of memory does not know."""

    def bound(self, graph, params, box, spec=None, sides="both"):
        raise AssertionError


@needs_auto_lirpa
@pytest.mark.parametrize("method", ["ibp", "deeppoly"])
def test_a_backend_refuses_it_too(method: str) -> None:
    network = zoo.make("strided")
    graph, inputs = planted(trace(network, zoo.IMAGE)), torch.rand((2, *zoo.IMAGE), dtype=torch.float64)
    with pytest.raises(UnsupportedOperation, match="'strange'"):
        build(method, backend="auto_lirpa").bound(graph, parameters(network), Box.linf(inputs, 0.1))
