"""HBox: a hybrid of zonotope and box that turns crossing neurons into boxes (Jovanović et al., TMLR 10/2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.affine_forms import AffineForm, bound_by_forms
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.interval import Interval
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class HBox(Relaxation):
    """Error terms survive stable neurons only: at a crossing one, centre and box become u/2 and the terms vanish."""

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        return bound_by_forms(graph, params, box, spec, _relu)


def _relu(form: AffineForm, z: Interval, index: int) -> AffineForm:
    active, inactive = z.lower >= 0, z.upper <= 0
    # Neither for a NaN bound, which then stays a NaN.
    half = torch.where(active | inactive, torch.zeros_like(z.upper), z.upper / 2)
    zero = torch.zeros_like(half)
    box = zero if form.box is None else torch.where(active, form.box, zero)
    return AffineForm(
        torch.where(active, form.center, half),
        {k: torch.where(active, e, zero) for k, e in form.errors.items()},
        box + half,
    )
