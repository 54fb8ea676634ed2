"""HBox and DeepZ written down as their papers do: error terms carried forward, one for each pixel and crossing neuron.

x = center + Σ_k e_k · errors_k + box · noise, all noise in [-1, 1]. Error terms come in blocks, named by the operation
that introduced them, so that the branches of a residual connection share those they have in common. Slow and large on
purpose: what the implementations by back-substitution must agree with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds import Box
from certtrain.networks import Graph, Params
from certtrain.networks.ops import Activation, Add, Input, LinearMap, Values


@dataclass(frozen=True)
class Form:
    """center [batch, *shape], operation index -> errors [terms, batch, *shape], box [batch, *shape]."""

    center: Tensor
    errors: dict[int, Tensor]
    box: Tensor

    def bounds(self) -> tuple[Tensor, Tensor]:
        radius = sum((e.abs().sum(0) for e in self.errors.values()), self.box)
        return self.center - radius, self.center + radius

    def linear(self, op: LinearMap, values: Values) -> "Form":
        errors = {k: op.forward_linear(values, e) for k, e in self.errors.items()}
        return Form(op.forward(values, self.center), errors, op.forward_abs(values, self.box))

    def __add__(self, other: "Form") -> "Form":
        errors = dict(self.errors)
        for k, e in other.errors.items():
            errors[k] = errors[k] + e if k in errors else e
        return Form(self.center + other.center, errors, self.box + other.box)


Rule = Callable[[Form, int], Form]


def diagonal(x: Tensor) -> Tensor:
    """One error term per element: [batch, *shape] -> [elements, batch, *shape]."""
    flat = x.flatten(1)
    return (torch.eye(flat.shape[1], dtype=x.dtype)[:, None] * flat[None]).reshape(flat.shape[1], *x.shape)


def hbox(form: Form, index: int) -> Form:
    """Centre and box become u/2 at a crossing neuron, and its error terms vanish."""
    lower, upper = form.bounds()
    active, crossing = (lower >= 0).to(upper), (lower < 0) & (upper > 0)
    half = torch.where(crossing, upper / 2, 0.0)
    return Form(form.center * active + half, {k: e * active for k, e in form.errors.items()}, form.box * active + half)


def zonotope(form: Form, index: int) -> Form:
    """Slope u/(u-l) at a crossing neuron; half of what lies between the lines is a new error term."""
    lower, upper = form.bounds()
    crossing = (lower < 0) & (upper > 0)
    slope = torch.where(crossing, upper / torch.where(crossing, upper - lower, 1.0), (lower >= 0).to(upper))
    half = torch.where(crossing, -slope * lower / 2, 0.0)
    errors = {k: e * slope for k, e in form.errors.items()}
    return Form(form.center * slope + half, {**errors, index: diagonal(half)}, form.box)


RULES: dict[str, Rule] = {"hbox": hbox, "zonotope": zonotope}


def bound(graph: Graph, params: Params, box: Box, spec: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """Bounds of the specification, merged into the last affine layer."""
    values = graph.values(params, box.lower)
    forms: list[Form] = []
    for i, op in enumerate(graph.ops):
        match op:
            case Input():
                forms.append(Form(box.center, {0: diagonal(box.radius)}, torch.zeros_like(box.center)))
            case Activation():
                forms.append(RULES[rule](forms[op.inputs[0]], i))
            case Add():
                forms.append(forms[op.inputs[0]] + forms[op.inputs[1]])
            case LinearMap():
                forms.append(forms[op.inputs[0]].linear(op, values))
    last = len(graph.ops) - 1
    constant = torch.zeros((1, spec.shape[1]), dtype=spec.dtype)
    if isinstance(op := graph.ops[last], LinearMap):
        constant = (spec * op.forward(values, torch.zeros((1, *op.in_shape), dtype=spec.dtype))[:, None]).sum(-1)
        spec, last = op.adjoint(values, spec), op.inputs[0]
    rows, form = spec.flatten(2), forms[last]
    center = (rows * form.center.flatten(1)[:, None]).sum(-1) + constant
    radius = (rows.abs() * form.box.flatten(1)[:, None]).sum(-1)
    for e in form.errors.values():
        radius = radius + (rows @ e.flatten(2).permute(1, 2, 0)).abs().sum(-1)
    return center - radius, center + radius
