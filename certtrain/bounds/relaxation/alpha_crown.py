"""alpha-CROWN: back-substitution with the lower slopes that are best for each row (Xu et al., ICLR 2021).

Pre-activation bounds are optimised, too, neuron by neuron in the order of the network: each undecided neuron's lower
and upper bound has slopes of its own for all activations before it. The lower line through the origin does not depend
on pre-activation bounds and the upper chord falls with them, so tighter ones can never cost what rows with the same
slopes prove later. But tighter ones are followed by other slopes to begin with: what deeppoly proves is therefore kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from certtrain.activations import Interval, Lines
from certtrain.bounds.analysis import NOTHING, Analysis, Given
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.optimised.hidden import Tightening
from certtrain.bounds.relaxation.base import BackSubstitution
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.bounds.substitution.preactivation import relax_activations, unless_exact
from certtrain.bounds.substitution.specification import spec_rows
from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class AlphaCrown(BackSubstitution):
    """Back-substitution with optimised lower slopes, of inner layers, too; never looser than deeppoly.

    Derivatives in parameters and boxes are those at the slopes found.

    Attributes:
        iterations: Steps of each optimisation; 0 is deeppoly.
        search: Precision in which slopes are searched: "own", that of the bounds, or "single", float32, which is faster
            where bounds are float64. Bounds at the slopes found are computed in their own.

    Raises:
        ConfigError: If iterations are no whole number >= 0.
    """

    optimises: ClassVar[bool] = True

    iterations: int = 20
    search: Literal["own", "single"] = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (type(self.iterations) is int and self.iterations >= 0):
            raise ConfigError(f"relaxation.iterations must be a whole number >= 0, got {self.iterations!r}")

    def analyse(
        self,
        graph: Graph,
        params: Params,
        box: Box,
        spec: Tensor | None = None,
        sides: Sides = "both",
        given: Given = NOTHING,
    ) -> Analysis:
        """See `Analysing.analyse`.

        Raises:
            ConfigError: If slopes or multipliers are given: it chooses slopes, and has no splits' multipliers.
        """
        if given.slopes or given.multipliers:
            raise ConfigError("alpha_crown chooses slopes itself and takes no multipliers; deeppoly and crown_ibp do")
        deeppoly = DeepPoly(memory_mb=self.memory_mb, executor=self.executor)
        plain = deeppoly.analyse(graph, params, box, spec, sides, given)
        if not self.iterations:
            return plain
        tightening = Tightening(
            self.substitution(graph, params, box, given),
            box,
            self.iterations,
            torch.float32 if self.search == "single" else box.lower.dtype,
        )

        def bound(index: int, lines: Mapping[int, Lines]) -> Interval:
            return tightening.tighten(index, plain.hidden[index])

        def known(index: int, lines: Mapping[int, Lines]) -> Interval:
            found = given.refine(index, unless_exact(graph, plain.hidden, bound)(index, lines))
            tightening.hidden[index] = found
            return found

        hidden = relax_activations(graph, given, known, "adaptive")
        return Analysis(self._margins(tightening, spec, plain.bounds), hidden.bounds, hidden.lines)

    def _margins(self, tightening: Tightening, spec: Tensor | None, plain: Bounds) -> Bounds:
        """Bounds of the specification's rows, or what is known of them where that is better."""
        substitution = tightening.substitution
        batch, last = substitution.passage.batch, len(substitution.graph.ops) - 1
        rows = spec_rows(substitution.graph, spec, substitution.passage.anchor.radius).expand(batch, -1, -1)
        count = rows.shape[1]
        if plain.upper is not None:
            rows = torch.cat([rows, -rows], dim=1)
        images = torch.arange(batch, device=rows.device).repeat_interleave(rows.shape[1])
        lower = tightening.lower(last, images, rows.flatten(0, 1)).reshape(batch, -1)
        upper = None if plain.upper is None else torch.minimum(plain.upper, -lower[:, count:])
        return Bounds(torch.maximum(plain.lower, lower[:, :count]), upper)
