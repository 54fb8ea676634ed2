"""Zonotopes with an extra box: x = center + Σ_k e_k · errors_k + box · noise, all noise in [-1, 1].

Error terms come in blocks, named by the operation that introduced them, so that the branches of a residual connection
keep sharing the terms they have in common. HBox and DeepZ differ in what a crossing ReLU does to a form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.affine import contract, merge_spec, spec_rows
from certtrain.bounds.base import Bounds, Box
from certtrain.bounds.interval import Interval
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Add, Input, LinearMap, ReLU, Values


@dataclass(frozen=True)
class AffineForm:
    """One operation's output as an affine image of noise.

    Attributes:
        center: [batch, *shape].
        errors: Operation index -> error terms [terms, batch, *shape] that it introduced.
        box: Independent error of each element, not negative, [batch, *shape]; None where there is none.
    """

    center: Tensor
    errors: dict[int, Tensor]
    box: Tensor | None

    def interval(self) -> Interval:
        """The tightest box around the form."""
        radius = sum((e.abs().sum(0) for e in self.errors.values()), torch.zeros_like(self.center))
        radius = radius if self.box is None else radius + self.box
        return Interval(self.center - radius, self.center + radius)

    def linear(self, op: LinearMap, values: Values) -> AffineForm:
        """Through y = W x + b; exact but for the box, which goes through |W|."""
        return AffineForm(
            op.forward(values, self.center),
            {k: op.forward_linear(values, e) for k, e in self.errors.items()},
            None if self.box is None else op.forward_abs(values, self.box),
        )

    def __add__(self, other: AffineForm) -> AffineForm:
        """Sum of two forms over the same noise."""
        errors = dict(self.errors)
        for k, e in other.errors.items():
            errors[k] = errors[k] + e if k in errors else e
        return AffineForm(self.center + other.center, errors, _sum(self.box, other.box))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


ReluRule = Callable[[AffineForm, Interval, int], AffineForm]


def diagonal(x: Tensor) -> Tensor:
    """One error term per element: [batch, *shape] -> [elements, batch, *shape]."""
    flat = x.flatten(1)
    eye = torch.eye(flat.shape[1], dtype=x.dtype, device=x.device)
    return (eye[:, None] * flat[None]).reshape(flat.shape[1], *x.shape)


def bound_by_forms(graph: Graph, params: Params, box: Box, spec: Tensor | None, relu: ReluRule) -> Bounds:
    """Bounds by forward propagation of affine forms; the specification is merged into the last affine layer.

    Args:
        graph: The network.
        params: Parameter name -> tensor.
        box: The inputs to cover.
        spec: As in `Relaxation.bound`.
        relu: (form, its interval, index of the ReLU) -> a form that contains the ReLU's outputs.
    """
    values = graph.values(params, box.lower)
    index, rows, constant = merge_spec(graph, values, spec_rows(graph, spec, box.lower))
    forms: list[AffineForm] = []
    for i, op in enumerate(graph.ops[: index + 1]):
        match op:
            case Input():
                forms.append(AffineForm(box.center, {0: diagonal(box.radius)}, None))
            case ReLU():
                form = forms[op.inputs[0]]
                forms.append(relu(form, form.interval(), i))
            case Add():
                forms.append(forms[op.inputs[0]] + forms[op.inputs[1]])
            case LinearMap():
                forms.append(forms[op.inputs[0]].linear(op, values))
    form = forms[index]
    center = contract(rows, form.center) + constant
    radius = torch.zeros_like(center) if form.box is None else contract(rows.abs(), form.box)
    for e in form.errors.values():
        # [batch, rows, n] x [batch, n, terms]: every form's coefficient of every error term
        radius = radius + (rows.flatten(2) @ e.flatten(2).permute(1, 2, 0)).abs().sum(-1)
    return Bounds(center - radius, center + radius)
