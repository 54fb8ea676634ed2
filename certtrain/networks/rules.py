"""The one way in which a network is walked: operation by operation, each by the rule for its kind.

A traversal is a table of rules. A kind that has none is refused by name and position: nothing passes a traversal
that was not thought of there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from certtrain.errors import UnsupportedOperation
from certtrain.networks.ops import Op

Rule = TypeVar("Rule", bound=Callable[..., Any])
Context = TypeVar("Context")
Result = TypeVar("Result")


class Rules(Generic[Rule]):
    """Kinds of operations -> the rule of one traversal; a kind's rule also serves those derived from it.

    Args:
        traversal: What it computes, for messages.
        table: The rules.
    """

    def __init__(self, traversal: str, table: Mapping[type[Op], Rule]) -> None:
        self.traversal = traversal
        self.table = dict(table)
        self._found: dict[type[Op], Rule] = {}

    def of(self, index: int, op: Op) -> Rule:
        """The rule for an operation of a network.

        Raises:
            UnsupportedOperation: If there is none; names the operation, its kind and position, and the traversal.
        """
        found = self._found.get(type(op))
        if found is not None:
            return found
        for kind in type(op).__mro__:
            if kind in self.table:
                return self._found.setdefault(type(op), self.table[kind])
        raise UnsupportedOperation(
            f"operation '{op.name}' ({type(op).__name__}) at position {index} has no rule for {self.traversal}"
        )


class Propagation(Generic[Context, Result]):
    """Forwards through a network: results of operations in order, each computed when it is first asked for.

    A rule is called with the context, the operation's index, the operation, and the results of those that it reads.

    Args:
        ops: The operations.
        rules: Of the traversal.
        context: What rules need beside results.
    """

    def __init__(self, ops: Sequence[Op], rules: Rules[Callable[..., Result]], context: Context) -> None:
        self.ops = ops
        self.rules = rules
        self.context = context
        self.found: list[Result] = []

    def at(self, index: int) -> Result:
        """The result of one operation."""
        for i in range(len(self.found), index + 1):
            op = self.ops[i]
            rule = self.rules.of(i, op)
            self.found.append(rule(self.context, i, op, *(self.found[j] for j in op.inputs)))
        return self.found[index]

    def all(self) -> list[Result]:
        """The results of all operations."""
        self.at(len(self.ops) - 1)
        return self.found
