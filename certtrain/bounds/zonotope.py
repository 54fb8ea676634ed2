"""DeepZ: zonotopes with one new error term per crossing neuron (Singh et al., NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.affine_forms import AffineForm, bound_by_forms, diagonal
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.interval import Interval
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class Zonotope(Relaxation):
    """Slope u/(u-l) at a crossing neuron, centre shifted by half the gap, the other half a new error term."""

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        return bound_by_forms(graph, params, box, spec, _relu)


def _relu(form: AffineForm, z: Interval, index: int) -> AffineForm:
    active, inactive = z.lower >= 0, z.upper <= 0
    stable = active | inactive
    # As in `relax_relu`: no division by a stable neuron's width; a NaN bound and a width that overflows become NaN.
    width = torch.where(stable, 1.0, z.upper - z.lower)
    width = torch.where(width.isinf(), torch.full_like(width, torch.nan), width)
    slope = torch.where(stable, active.to(width.dtype), z.upper / width)
    gap = torch.where(stable, torch.zeros_like(slope), -slope * z.lower / 2)
    errors = {k: e * slope for k, e in form.errors.items()}
    return AffineForm(form.center * slope + gap, {**errors, index: diagonal(gap)}, form.box)
