"""A piecewise-linear network on a box as a mixed-integer program (Tjeng et al., ICLR 2019).

Nothing is relaxed: points of the box and solutions of the program are the same. Linear maps cost nothing, since every
output is an affine form of the columns; so do activations where pre-activation bounds show which piece is in force. Of
the others, each piece i of a function of one input has a column w_i, how much of it lies below z:

    z = l + Σ w_i · (length of piece i),   f(z) = f(l) + Σ w_i · (rise of piece i),   w_i >= d_i >= w_{i+1}, d_i binary

the incremental formulation (Padberg, 2000), whose linear relaxation is the hull of each function: for ReLU the
triangle. A maximum has a binary column for each candidate that may win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from certtrain.activations import Interval
from certtrain.activations.maximum import WindowMaximum
from certtrain.activations.piecewise import PiecewiseLinear
from certtrain.activations.relu import ReLU
from certtrain.certify.milp.affine import Affine, scattering
from certtrain.certify.milp.program import Program
from certtrain.errors import UnsupportedOperation
from certtrain.networks import Graph
from certtrain.networks.ops import Activation, Add, Input, LinearMap
from certtrain.networks.rules import Propagation, Rules

# Of every linear map: see `affine.linear_maps`.
Maps = Mapping[int, tuple[csr_array, np.ndarray]]


@dataclass(frozen=True)
class Encoded:
    """A network on the box of one image.

    Attributes:
        program: Whose solutions are the points of the box.
        inputs: The point of a solution.
        outputs: What the network makes of it.
    """

    program: Program
    inputs: Affine
    outputs: Affine


@dataclass(frozen=True)
class _Encoding:
    program: Program
    maps: Maps
    box: tuple[np.ndarray, np.ndarray]
    hidden: Mapping[int, Interval]

    def input(self, index: int, op: Input) -> Affine:
        lower, upper = self.box
        free = (upper > lower).nonzero()[0]
        columns = self.program.add_columns(len(free))
        moves = Affine.of_columns(columns, (upper - lower)[free])
        return Affine.constant(lower) + moves.mapped(scattering(free, len(lower)))

    def linear(self, index: int, op: LinearMap, x: Affine) -> Affine:
        return x.mapped(*self.maps[index])

    def activation(self, index: int, op: Activation, z: Affine) -> Affine:
        bounds, function = self.hidden[op.inputs[0]], op.function
        exact = function.linear_part(bounds)
        shift = torch.zeros_like(exact.lower_slope) if exact.lower_intercept is None else exact.lower_intercept
        outputs = _flat(function.for_inputs(torch.arange(op.size).reshape(1, *op.shape)))
        linear = z.scaled(_flat(exact.lower_slope)) + Affine.constant(_flat(shift))
        decided = linear.mapped(scattering(outputs, op.size))
        undecided = _flat(function.undecided(bounds)).nonzero()[0]
        return decided + encoder_of(index, op)(_Undecided(self.program, op, z, bounds, undecided, outputs))


def _flat(x: Tensor) -> np.ndarray:
    return x.cpu().reshape(-1).numpy()


@dataclass(frozen=True)
class _Undecided:
    """What is left of an activation: its undecided elements, and all that is known of them.

    Attributes:
        program: Gets columns and rows for them.
        op: The activation.
        z: Its inputs.
        bounds: Of its inputs.
        elements: Which of its inputs are undecided, ascending.
        outputs: Each input's output.
    """

    program: Program
    op: Activation
    z: Affine
    bounds: Interval
    elements: np.ndarray
    outputs: np.ndarray

    def pieces(self) -> Affine:
        """A function of one input, made of straight pieces; zero where it is decided."""
        function = self.op.function
        knots = np.array(function.knots if isinstance(function, PiecewiseLinear) else (0.0,))
        lower, upper = (_flat(x)[self.elements] for x in (self.bounds.lower, self.bounds.upper))
        between = (lower[:, None] < knots) & (knots < upper[:, None])
        found = Affine.constant(np.zeros(self.op.size))
        for pattern in np.unique(between, axis=0):
            # Elements between whose bounds lie the same knots.
            these = (between == pattern).all(1).nonzero()[0]
            middle = [np.full(len(these), knot) for knot in knots[pattern]]
            corners = np.stack([lower[these], *middle, upper[these]])
            elements = self.elements[these]
            found = found + self._incremental(elements, corners).mapped(scattering(elements, self.op.size))
        return found

    def _incremental(self, elements: np.ndarray, corners: np.ndarray) -> Affine:
        """f(z) of elements whose pieces end at `corners`, [corners, elements], ascending."""
        program, one = self.program, np.ones(len(elements))
        heights = self.op.function(torch.from_numpy(corners)).numpy()
        filled = [program.add_columns(len(elements)) for _ in corners[1:]]
        along, up = (
            reduce(add, [Affine.of_columns(w, d) for w, d in zip(filled, np.diff(x, axis=0), strict=True)])
            for x in (corners, heights)
        )
        program.equal(self.z[elements] - along - Affine.constant(corners[0]))
        for before, after in pairwise(filled):
            full = Affine.of_columns(program.add_columns(len(elements), binary=True), one)
            program.at_least(Affine.of_columns(before, one) - full)
            program.at_least(full - Affine.of_columns(after, one))
        return up + Affine.constant(heights[0])

    def maximum(self) -> Affine:
        """The largest of several inputs; zero for windows in which one of them is sure to win.

        Beside the candidates that may win stands the largest lower bound, a constant: below it all others may be.
        """
        program, size = self.program, self.op.size
        windows, place = np.unique(self.outputs[self.elements], return_inverse=True)
        image = self.op.function.image(self.bounds)
        low, high = (_flat(x)[windows] for x in (image.lower, image.upper))
        y = Affine.of_columns(program.add_columns(len(windows)), high - low) + Affine.constant(low)
        wins = Affine.of_columns(program.add_columns(len(place), binary=True), np.ones(len(place)))
        floor = Affine.of_columns(program.add_columns(len(windows), binary=True), np.ones(len(windows)))
        program.equal(wins.mapped(scattering(place, len(windows))) + floor - Affine.constant(np.ones(len(windows))))
        candidates, room = self.z[self.elements], high[place] - _flat(self.bounds.lower)[self.elements]
        program.at_least(y[place] - candidates)
        program.at_least(candidates + Affine.constant(room) - wins.scaled(room) - y[place])
        program.at_least(Affine.constant(high) - floor.scaled(high - low) - y)
        return y.mapped(scattering(windows, size))


Encoder = Callable[[_Undecided], Affine]
ENCODERS: dict[type, Encoder] = {
    ReLU: _Undecided.pieces,
    PiecewiseLinear: _Undecided.pieces,
    WindowMaximum: _Undecided.maximum,
}


def encoder_of(index: int, op: Activation) -> Encoder:
    """How an activation's undecided elements are encoded.

    Raises:
        UnsupportedOperation: If it is not piecewise linear.
    """
    for kind in type(op.function).__mro__:
        if kind in ENCODERS:
            return ENCODERS[kind]
    raise UnsupportedOperation(
        f"operation '{op.name}' ({type(op.function).__name__}) at position {index} is not piecewise linear: "
        "there is no mixed-integer program for it"
    )


ENCODING: Rules[Callable[..., Affine]] = Rules(
    "mixed-integer programs",
    {
        Input: _Encoding.input,
        Add: lambda run, index, op, *terms: reduce(add, terms),
        Activation: _Encoding.activation,
        LinearMap: _Encoding.linear,
    },
)


def check_encodable(graph: Graph) -> None:
    """Says early what cannot be encoded.

    Raises:
        UnsupportedOperation: Naming the operation.
    """
    for index, op in enumerate(graph.ops):
        ENCODING.of(index, op)
        if isinstance(op, Activation):
            encoder_of(index, op)


def encode(graph: Graph, maps: Maps, lower: Tensor, upper: Tensor, hidden: Mapping[int, Interval]) -> Encoded:
    """Encodes a network on a box.

    Args:
        graph: The network.
        maps: See `linear_maps`.
        lower: [*input_shape].
        upper: [*input_shape].
        hidden: Operation that an activation reads -> pre-activation bounds on the box, finite, each [1, *shape].

    Raises:
        UnsupportedOperation: Naming the operation.
    """
    program = Program()
    box = _flat(lower.double()), _flat(upper.double())
    found = Propagation(graph.ops, ENCODING, _Encoding(program, maps, box, hidden)).all()
    return Encoded(program, found[0], found[-1])
