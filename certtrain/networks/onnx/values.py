"""What flows between the nodes of an ONNX network while it is turned into torch.

ONNX speaks of one input at a time; torch of a batch. Where an ONNX shape begins with an axis of length one, that axis
is the batch: [1, 3, 8, 8] is [batch, 3, 8, 8]. Any other shape, [5] or [784, 1], gets a batch axis in front. A value's
torch shape thus follows from its ONNX shape alone, and so does what every reshape means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

Shape = tuple[int, ...]
# Two, so that what mixes images or takes a batch of one for granted shows while the network is read.
PROBE_BATCH = 2


def has_batch(shape: Shape) -> bool:
    """Whether the first axis of an ONNX shape is the batch."""
    return len(shape) > 1 and shape[0] == 1


def features(shape: Shape) -> Shape:
    """An ONNX shape as torch's, without the batch axis; a single number is a vector of length one."""
    return shape[1:] if has_batch(shape) else shape or (1,)


@dataclass(frozen=True)
class Value:
    """The result of a node, for a batch.

    Attributes:
        node: Of torch.fx.
        probe: The result for a batch of zeros, [PROBE_BATCH, *features].
        shape: What ONNX calls its shape, for one input.
    """

    node: fx.Node
    probe: Tensor
    shape: Shape

    @property
    def features(self) -> Shape:
        """Shape in torch without the batch axis."""
        return features(self.shape)


# What a node reads: a value, or numbers that do not depend on the input.
Operand = Value | np.ndarray


class Emitter:
    """Writes a torch.fx graph, and runs every operation on a probe while it is written.

    Args:
        dtype: Of the network.

    Attributes:
        root: Holds layers and constants.
        graph: What was written.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.root = nn.Module()
        self.graph = fx.Graph()
        self._probes: dict[fx.Node, Any] = {}
        self._names: set[str] = set()

    def input(self, shape: Shape) -> Value:
        """The network's input."""
        probe = torch.zeros((PROBE_BATCH, *features(shape)), dtype=self.dtype)
        node = self.graph.placeholder("x")
        self._probes[node] = probe
        return Value(node, probe, shape)

    def call(self, function: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        """A function, or a method by its name, applied to what was emitted before; its probe stands in `probe`."""
        is_method = isinstance(function, str)
        make = self.graph.call_method if is_method else self.graph.call_function
        node = make(function, (x, *args), kwargs)
        probes = fx.node.map_arg(node.args, lambda n: self._probes[n])
        with torch.no_grad():
            run = getattr(probes[0], function) if is_method else function
            self._probes[node] = run(*(probes[1:] if is_method else probes), **kwargs)
        return node

    def layer(self, name: str, layer: nn.Module, x: fx.Node) -> fx.Node:
        """A layer, in eval mode, under a name of its own."""
        name = self._register(name)
        self.root.add_module(name, layer.to(self.dtype).eval())
        node = self.graph.call_module(name, (x,))
        with torch.no_grad():
            self._probes[node] = layer(self._probes[x])
        return node

    def constant(self, name: str, tensor: Tensor) -> fx.Node:
        """A buffer under a name of its own."""
        name = self._register(name)
        self.root.register_buffer(name, tensor)
        node = self.graph.get_attr(name)
        self._probes[node] = tensor
        return node

    def probe(self, node: fx.Node) -> Tensor:
        """What an emitted operation gave on the probe."""
        return self._probes[node]

    def _register(self, name: str) -> str:
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
        name = name if name and not name[0].isdigit() else f"node_{name}"
        unique, number = name, 2
        while unique in self._names or hasattr(nn.Module, unique):
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        return unique

    def value(self, node: fx.Node, shape: Iterable[int]) -> Value:
        """What a node gave, which already has the features of an ONNX shape."""
        found = Value(node, self._probes[node], tuple(int(n) for n in shape))
        if found.probe.shape != (PROBE_BATCH, *found.features):
            raise ValueError(f"its result has shape {list(found.probe.shape[1:])}, not {list(found.features)}")
        return found

    def reshaped(self, x: fx.Node, shape: Iterable[int]) -> Value:
        """The same elements in another ONNX shape."""
        shape = tuple(int(n) for n in shape)
        wanted = features(shape)
        if tuple(self._probes[x].shape[1:]) == wanted:
            return self.value(x, shape)
        if len(wanted) == 1:
            return self.value(self.call(torch.flatten, x, 1), shape)
        return self.value(self.call("reshape", x, -1, *wanted), shape)

    def opened(self, x: Value, touched: Collection[int]) -> tuple[fx.Node, int]:
        """A value in which the axes that a node works on are all there, and by how much torch's axes are further back.

        Args:
            x: The value.
            touched: ONNX axes, not negative. If the batch is among them, it becomes an axis of length one of its own.
        """
        if not has_batch(x.shape):
            return x.node, 1
        if 0 not in touched:
            return x.node, 0
        return self.call("unsqueeze", x.node, 1), 1
