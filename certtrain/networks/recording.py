"""What torch.fx records of a module: its nodes, with the result of each on a blank batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from certtrain.errors import UnsupportedOperation, one_line
from certtrain.networks.layers import Normalize

# An odd batch that no layer's own size is likely to equal: a reshape that mixes images changes it.
PROBE_BATCH = 3


class _Tracer(fx.Tracer):
    """Keeps `Normalize` whole, as it keeps the layers of torch.nn."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) is Normalize or super().is_leaf_module(m, module_qualified_name)


class _Results(fx.Interpreter):
    """Runs the traced module once and keeps what every node returned."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.results: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.results[n] = super().run_node(n)
        return self.results[n]


def record(module: nn.Module, shape: tuple[int, ...]) -> dict[fx.Node, Any]:
    """Nodes of the traced network with the result of each on a batch of zeros."""
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # torch.fx raises many kinds; all mean that the control flow cannot be recorded
        raise UnsupportedOperation(f"torch.fx cannot trace {type(module).__name__}: {one_line(error)}") from error
    runner = _Results(fx.GraphModule(module, graph))
    tensor = next(iter(module.parameters()), torch.zeros(()))
    probe = torch.zeros((PROBE_BATCH, *shape), dtype=tensor.dtype, device=tensor.device)
    with torch.no_grad():
        try:
            runner.run(probe)
        except Exception as error:
            failed = next((n for n in graph.nodes if n not in runner.results), None)
            raise UnsupportedOperation(
                f"the network does not accept inputs of shape {shape}: at '{failed}': {one_line(error)}"
            ) from error
    return runner.results


def arguments(node: fx.Node) -> list[Any]:
    """All arguments of a node, those given by keyword last."""
    return [*node.args, *node.kwargs.values()]


def argument(node: fx.Node, position: int, keyword: str, default: Any) -> Any:
    """One argument of a node, given by position or by keyword."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(keyword, default)


def ancestors(node: fx.Node) -> set[fx.Node]:
    """The node and everything that its value depends on."""
    seen, stack = set(), [node]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack.extend(current.all_input_nodes)
    return seen
