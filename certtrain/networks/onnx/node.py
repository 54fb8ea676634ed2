"""One node of an ONNX graph, as the rule of its operator sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn

from certtrain.errors import ConfigError, UnsupportedOperation
from certtrain.networks.onnx.values import Emitter, Operand, Value

T = TypeVar("T")
MISSING: Any = object()


@dataclass
class Node:
    """What a rule reads, and where it writes.

    A rule must ask for every attribute and input of its node: what nobody asked for is refused, not ignored.

    Attributes:
        name: As the file has it; made from operator and position where it has none.
        operator: Its kind.
        attributes: Name -> value.
        operands: What it reads; None for optional inputs that are left out.
        emitter: Where torch operations go.
        outputs: Names of its results; "" for those that are left out.
    """

    name: str
    operator: str
    attributes: dict[str, Any]
    operands: list[Operand | None]
    emitter: Emitter
    outputs: list[str]
    asked: set[str | int] = field(default_factory=set)

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute; bytes are text."""
        self.asked.add(name)
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def operand(self, position: int) -> Operand | None:
        """What stands at a position; None where there is nothing."""
        self.asked.add(position)
        return self.operands[position] if position < len(self.operands) else None

    def value(self, position: int = 0) -> Value:
        """What stands there, which must depend on the network's input."""
        found = self.operand(position)
        if not isinstance(found, Value):
            what = "nothing" if found is None else "a constant"
            self.refuse(f"its input {position} is {what}, where a layer's output is needed")
        return found

    def numbers(self, position: int, default: T = MISSING) -> np.ndarray | T:
        """Numbers that stand there, which must not depend on the network's input."""
        found = self.operand(position)
        if isinstance(found, Value):
            self.refuse(f"its input {position} must be a constant, not a layer's output")
        if found is None:
            if default is MISSING:
                self.fault(f"its input {position} is missing")
            return default
        return found

    def option(self, name: str, position: int, default: Any = None) -> Any:
        """What older versions of an operator have as an attribute, newer ones as an input; lists are lists of ints."""
        found = self.attribute(name, None)
        if found is None:
            found = self.numbers(position, None)
        if found is None:
            return default
        return found.tolist() if isinstance(found, np.ndarray) else found

    def weight(self, position: int) -> Tensor:
        """Weights that stand there, in the network's type.

        Raises:
            ConfigError: If they are not finite.
        """
        return self.finite(self.numbers(position))

    def finite(self, numbers: np.ndarray) -> Tensor:
        """Numbers as a tensor of the network's type; see `weight`."""
        found = torch.from_numpy(np.array(numbers)).to(self.emitter.dtype)
        if not bool(found.isfinite().all()):
            self.fault("its weights must be finite, got NaN or infinity among them")
        return found

    def layer(self, layer: nn.Module, x: fx.Node) -> fx.Node:
        """Emits a layer under this node's name."""
        return self.emitter.layer(self.name, layer, x)

    def constant(self, tensor: Tensor) -> fx.Node:
        """Emits a constant under this node's name."""
        return self.emitter.constant(f"{self.name}_constant", tensor)

    def only(self, name: str, default: Any, why: str) -> None:
        """Refuses any but one value of an attribute."""
        found = self.attribute(name, default)
        if found != default:
            self.refuse(f"{name}={found} is not supported: {why}")

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= axis < rank:
            self.fault(f"there is no axis {axis} among {rank}")
        return axis % rank

    def check_all_was_asked(self) -> None:
        """Refuses what the rule did not look at.

        Raises:
            UnsupportedOperation: If that is anything.
        """
        for name, found in self.attributes.items():
            if name not in self.asked:
                self.refuse(f"attribute {name}={str(found)[:40]} is not supported")
        for position, operand in enumerate(self.operands):
            if operand is not None and position not in self.asked:
                self.refuse(f"its input {position} is not supported")

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"node '{self.name}' ({self.operator})"

    def refuse(self, reason: str) -> NoReturn:
        """Raises UnsupportedOperation."""
        raise UnsupportedOperation(f"{self.label}: {reason}")

    def fault(self, reason: str) -> NoReturn:
        """Raises ConfigError: the file contradicts itself."""
        raise ConfigError(f"{self.label}: {reason}")
