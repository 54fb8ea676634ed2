"""A network in two: what comes up to an operation, and what comes after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Input, Reshape
from certtrain.spelling import did_you_mean


@dataclass(frozen=True)
class Halves:
    """A network in two, which read the same parameters under the same names.

    Attributes:
        head: Images -> what goes over, flattened.
        tail: What goes over, in the shape that it has in the network -> outputs.
    """

    head: Graph
    tail: Graph


def place_of(graph: Graph, behind: str | int) -> int:
    """Index of the operation behind which a network is split.

    Args:
        graph: The network.
        behind: Name of an operation, or number of an activation: 0 is the first, -1 the last one.

    Raises:
        ConfigError: If there is none.
    """
    if isinstance(behind, int):
        activations = graph.activations
        if not -len(activations) <= behind < len(activations):
            raise ConfigError(f"there is no activation {behind} to split behind: the network has {len(activations)}")
        return activations[behind][0]
    names = [op.name for op in graph.ops]
    if behind not in names:
        raise ConfigError(f"there is no layer '{behind}' to split behind{did_you_mean(behind, names)}")
    return len(names) - 1 - names[::-1].index(behind)


def split(graph: Graph, behind: str | int) -> Halves:
    """Splits a network behind an operation.

    Args:
        graph: The network.
        behind: See `place_of`.

    Raises:
        ConfigError: If there is no such operation, nothing comes after it, or something after it reads what comes
            before: a branch that goes around.
    """
    at = place_of(graph, behind)
    op, rest = graph.ops[at], graph.ops[at + 1 :]
    if not rest:
        raise ConfigError(f"nothing comes behind '{op.name}' to split from it")
    if around := [later.name for later in rest if any(index < at for index in later.inputs)]:
        raise ConfigError(f"the network cannot be split behind '{op.name}': '{around[0]}' reads what comes before it")
    head = graph.ops[: at + 1]
    if len(op.shape) != 1:
        head = (*head, Reshape(f"{op.name}.flat", (at,), (op.size,), op.shape))
    entry = Input("latent", (), op.shape)
    tail = [replace(later, inputs=tuple(index - at for index in later.inputs)) for later in rest]
    return Halves(
        Graph(head, graph.module, graph.input_shape, op.size),
        Graph((entry, *tail), graph.module, op.shape, graph.num_outputs),
    )
