"""Linear forms in a network's outputs, on the boxes of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Box
from certtrain.bounds.analysis import Analysing
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.milp.affine import Affine, linear_maps
from certtrain.certify.milp.encoding import Encoded, Maps, check_encodable, encode
from certtrain.certify.milp.solving import minimum
from certtrain.networks import Graph, Params


@dataclass(frozen=True)
class Exact:
    """Smallest values of linear forms on boxes, enclosed.

    Attributes:
        lower: Lower bounds, HiGHS's tolerances subtracted; NaN where bounds or weights are not finite.
        upper: What the network makes of `points`, a moment later and without HiGHS: upper bounds.
        points: Where that is, inside the boxes.
    """

    lower: Float[Tensor, "batch rows"]
    upper: Float[Tensor, "batch rows"]
    points: Float[Tensor, "batch rows *shape"]


@dataclass(frozen=True)
class Question:
    """Linear forms on boxes, as programs.

    Attributes:
        graph: The network.
        box: float64.
        spec: The forms, [batch, rows, outputs], float64.
        relaxed: Lower bounds of the relaxation, [batch, rows].
        hidden: Its pre-activation bounds: operation that an activation reads -> [batch, *shape].
        maps: See `linear_maps`.
    """

    graph: Graph
    box: Box
    spec: Tensor
    relaxed: Tensor
    hidden: Mapping[int, Interval]
    maps: Maps

    @staticmethod
    def of(graph: Graph, params: Params, box: Box, spec: Tensor, relaxation: Analysing) -> Question:
        """With the pre-activation bounds of a relaxation.

        Raises:
            UnsupportedOperation: If an operation is not piecewise linear.
        """
        check_encodable(graph)
        with torch.no_grad():
            found = relaxation.analyse(graph, params, box, spec, "lower")
            return Question(graph, box, spec, found.bounds.lower, found.hidden, linear_maps(graph, params))

    def finite(self, image: int) -> bool:
        """Whether bounds and weights are numbers: nothing can be said of an image otherwise."""
        ends = [x[image] for bounds in self.hidden.values() for x in (bounds.lower, bounds.upper)]
        bounded = all(bool(x.isfinite().all()) for x in (self.relaxed[image], *ends))
        weights = (torch.from_numpy(x) for matrix, offset in self.maps.values() for x in (matrix.data, offset))
        return bounded and all(bool(x.isfinite().all()) for x in weights)

    def encoded(self, image: int) -> Encoded:
        """The network on one box."""
        hidden = {i: Interval(x.lower[image, None], x.upper[image, None]) for i, x in self.hidden.items()}
        return encode(self.graph, self.maps, self.box.lower[image], self.box.upper[image], hidden)

    def form(self, encoded: Encoded, image: int, row: int) -> Affine:
        """One of the forms."""
        return encoded.outputs.mapped(csr_array(self.spec[image, row, None].cpu().numpy()))

    def point(self, encoded: Encoded, image: int, columns: np.ndarray) -> Tensor:
        """The point of a solution, [*shape], inside the box."""
        x = torch.from_numpy(encoded.inputs.at(columns)).to(self.box.lower).reshape(self.box.lower.shape[1:])
        return x.clamp(self.box.lower[image], self.box.upper[image])

    def __iter__(self) -> Iterator[int]:
        """The images."""
        return iter(range(len(self.box)))


def exact_minimum(
    graph: Graph,
    params: Params,
    box: Box,
    spec: Float[Tensor, "batch rows outputs"],
    relaxation: Analysing | None = None,
    deadline: float = math.inf,
) -> Exact:
    """The smallest value of `spec @ network(x)` over all x in the box, row by row.

    Args:
        graph: A network whose activations are piecewise linear.
        params: float64.
        box: float64.
        spec: float64.
        relaxation: Whose pre-activation bounds the programs start from; DeepPoly if None. The tighter, the faster.
        deadline: In `time.perf_counter()`.

    Raises:
        UnsupportedOperation: If an activation is not piecewise linear.
        OutOfTime: If the deadline passes.
        CerttrainError: If HiGHS fails.
    """
    question = Question.of(graph, params, box, spec, relaxation or DeepPoly())
    points = box.center[:, None].repeat(1, spec.shape[1], *[1] * (box.lower.dim() - 1))
    lower = torch.full_like(question.relaxed, torch.nan)
    for image in filter(question.finite, question):
        encoded = question.encoded(image)
        for row in range(spec.shape[1]):
            found = minimum(encoded, question.form(encoded, image, row), deadline)
            lower[image, row] = found.lower
            if found.columns is not None:
                points[image, row] = question.point(encoded, image, found.columns)
    with torch.no_grad():
        outputs = graph.forward(params, points.flatten(0, 1)).unflatten(0, points.shape[:2])
    return Exact(lower, (spec * outputs).sum(-1), points)
