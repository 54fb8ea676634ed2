"""What torch.fx records of a module: its nodes, with the result of each on a blank batch."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from certtrain.errors import ConfigError, UnsupportedOperation, one_line
from certtrain.networks.layers import Normalize

# An odd batch that no layer's own size is likely to equal: a reshape that mixes images changes it.
PROBE_BATCH = 3


DTYPES = (torch.float32, torch.float64)


class _Tracer(fx.Tracer):
    """Keeps `Normalize` whole, as it keeps the layers of torch.nn; records what is done with buffers, too."""

    proxy_buffer_attributes = True

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """A network reads one tensor; all other arguments of its forward keep their defaults."""
        _, (root, *given) = super().create_args_for_root(root_fn, is_module, concrete_args)
        for other in given[1:]:
            self.graph.erase_node(other.node)
        return (lambda root, *read: root_fn(root, *read)), [root, *given[:1]]

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
        raise UnsupportedOperation(
            f"torch.fx cannot trace {type(module).__name__}{_where(error)}: {one_line(error)}; what forward does may "
            "depend on shapes, not on values"
        ) from error
    runner = _Results(fx.GraphModule(module, graph))
    probe = blank(module, shape)
    with torch.no_grad():
        try:
            runner.run(probe)
        except Exception as error:
            failed = next((n for n in graph.nodes if n not in runner.results), None)
            raise UnsupportedOperation(
                f"the network does not accept inputs of shape {shape}: at '{failed}': {one_line(error)}"
            ) from error
    return runner.results


def _where(error: BaseException) -> str:
    """The last line of code that is not torch's or ours: that of the network."""
    ours = (str(Path(fx.__file__).parents[1]), str(Path(__file__).parents[2]))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*ours, "<"))]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def blank(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """A batch of zeros of the kind that a network reads.

    Raises:
        ConfigError: If that is neither float32 nor float64.
    """
    floating = (x for x in (*module.parameters(), *module.buffers()) if x.is_floating_point())
    like = next(floating, torch.zeros((), dtype=torch.float32))
    if like.dtype not in DTYPES:
        name = str(like.dtype).removeprefix("torch.")
        raise ConfigError(f"bounds need a network in float32 or float64, got {name}: convert it with .float()")
    return like.new_zeros((PROBE_BATCH, *shape))


def holds_tensors(result: Any) -> bool:
    """Whether a node returned several tensors, of which bounds know nothing."""
    return isinstance(result, (tuple, list)) and any(isinstance(x, Tensor) for x in result)


def arguments(node: fx.Node) -> list[Any]:
    """All arguments of a node, those given by keyword last; lists are spelled out."""
    found: list[Any] = []
    stack = [*reversed(node.kwargs.values()), *reversed(node.args)]
    while stack:
        last = stack.pop()
        if isinstance(last, (tuple, list)):
            stack.extend(reversed(last))
        else:
            found.append(last)
    return found


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
