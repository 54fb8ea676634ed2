"""Networks whose robustness is known, and relaxations that misbehave in one chosen way."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certtrain.bounds import Bounds, Box, Relaxation, Sides, relaxations
from certtrain.certify import Attack, Verdict, certify
from certtrain.networks import Graph, Params

ALL = relaxations()
QUICK = Attack(steps=5, restarts=2)


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    """A layer with these numbers."""
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data = torch.tensor(weight)
    layer.bias.data = torch.tensor(bias) if bias is not None else torch.zeros(len(weight))
    return layer


def diagonal() -> nn.Module:
    """Outputs are the two pixels: the margin of label 0 is x0 - x1, exactly known to every relaxation."""
    return nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0]]))


def paired() -> nn.Module:
    """Label 0 has margin 0.1 + 2·relu(x0) - 2·relu(x0) + relu(x1 - 0.5): intervals miss the cancellation."""
    return nn.Sequential(
        linear([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.0, 0.0, -0.5]),
        nn.ReLU(),
        linear([[2.0, -2.0, 1.0], [0.0, 0.0, 0.0]], [0.1, 0.0]),
    )


def spike(width: float) -> nn.Module:
    """Label 1 wins only within half of `width` around x0 = 0.6; from elsewhere no gradient points there."""
    return nn.Sequential(
        linear([[1.0, 0.0]] * 3, [width - 0.6, -0.6, -width - 0.6]),
        nn.ReLU(),
        linear([[0.0, 0.0, 0.0], [2 / width, -4 / width, 2 / width]], [1.0, 0.0]),
    )


@dataclass(frozen=True)
class Scripted(Relaxation):
    """Exact on points; on wider boxes every margin is what `script` says (or raises)."""

    script: Callable[[Box], Tensor]

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        logits = graph.forward(params, box.lower)
        exact = logits if spec is None else (spec @ logits[:, :, None]).squeeze(-1)
        if torch.equal(box.lower, box.upper):
            return Bounds(exact, exact)
        margins = self.script(box).to(exact.dtype)
        return Bounds(margins[:, None].expand_as(exact).clone(), None)


def constant(value: float) -> Scripted:
    """The same margin for all boxes."""
    return Scripted(lambda box: torch.full((len(box),), value))


def raising(error: BaseException, when: Callable[[Box], bool] = lambda box: True) -> Scripted:
    """Raises on some boxes; the others have margin -1."""

    def script(box: Box) -> Tensor:
        if when(box):
            raise error
        return torch.full((len(box),), -1.0)

    return Scripted(script)


def points(*rows: tuple[float, float]) -> Tensor:
    """Images of two pixels."""
    return torch.tensor(rows)


def run(
    model: nn.Module,
    inputs: Tensor,
    eps: float,
    *verifiers,
    label: int = 0,
    attack: Attack = QUICK,
    **options,
) -> list[Verdict]:
    """Certifies images that all have one label; without verifiers, by all relaxations."""
    labels = torch.full((len(inputs),), label)
    return certify(model, inputs, labels, eps, relaxations=verifiers or ALL, attack=attack, **options)
