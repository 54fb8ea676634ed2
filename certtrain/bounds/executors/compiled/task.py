"""What there is to do as the numbers that the compiled code reads: the structures of task.h."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.executors.compiled.build import Compiled, Entry, bundlers, compiled
from certtrain.bounds.executors.compiled.bundling import Bundling
from certtrain.bounds.executors.compiled.pool import parallel
from certtrain.bounds.executors.compiled.program import Program, translate
from certtrain.bounds.executors.compiled.steps import pad, whole
from certtrain.bounds.rows.anchor import Anchor
from certtrain.bounds.rows.passage import Linearization
from certtrain.bounds.rows.reach import Reach
from certtrain.bounds.rows.selection import RowIndex
from certtrain.deadline import check_deadline
from certtrain.networks.graph import Graph

# int64 numbers of a Step in task.h: its kind, three operands of three, layer, window and halo, three gradients of three
# (from GRADIENTS on), and the transposed weights.
STEP = 30
GRADIENTS = 20

# A call of the compiled code ends after so long, or after a few rows where those take longer: Python hears signals
# between two calls only, and shall not be deaf for a second.
PIECE_SECONDS = 0.25

# A tensor, and whether its first axis are the members of a population.
Given = tuple[Tensor, bool]


class Ended(IntEnum):
    """How a call ended; kept in step with substitute.c."""

    FINISHED = 0
    NO_MEMORY = 1
    UNFINISHED = 2


@dataclass(frozen=True)
class Job:
    """What is not a tensor of floating-point numbers.

    Attributes:
        graph: The network.
        anchor: Where rows end.
        linearization: Of which only the structure is read: the tensors come as operands.
        start: The operation that they read.
        reach: Patches that the starting forms hold; None for whole layers.
        rows: What to bound.
        bundling: Chooses how derivatives are computed.
        bundle: Rows of a bundle; None where rows are bounded one after the other.
        lanes: Numbers in a vector.
        most_rows: Rows that may be held at a time.
    """

    graph: Graph
    anchor: Anchor
    linearization: Linearization
    start: int
    reach: Reach | None
    rows: RowIndex
    bundling: Bundling
    bundle: int | None
    lanes: int
    most_rows: int

    @cached_property
    def alone(self) -> Program:
        """The steps of rows that come one after the other, whose channels fill vectors."""
        return translate(self.graph, self.anchor, self.linearization, self.start, self.reach, self.lanes)

    @cached_property
    def bundled(self) -> Program:
        """The steps of bundles."""
        return translate(self.graph, self.anchor, self.linearization, self.start, self.reach, lanes=1)

    def program(self, bundle: int | None) -> Program:
        """The steps of rows in bundles of a size, or of those one after the other."""
        return self.alone if bundle is None else self.bundled


def header(
    job: Job, program: Program, wanted: Given | None, tensors: list[Given], steps: np.ndarray, elements: int
) -> list[int]:
    """The numbers of a Task up to how many rows there are.

    Args:
        job: What to do.
        program: Of the two, the one that is followed.
        wanted: Which rows to bound; None for all.
        tensors: Starting forms as they are laid out, and constants.
        steps: See `numbers_of_steps`.
        elements: Of one starting form.
    """
    rows = job.rows
    return [
        *(steps.ctypes.data, len(steps), *_operand(*tensors[0], True), *_operand(*tensors[1], True)),
        *_grid(job, program, elements),
        *(rows.image.data_ptr(), rows.position.data_ptr(), rows.form.data_ptr()),
        *((0, 0, 0) if wanted is None else _operand(*wanted, False)),
        len(rows),
    ]


def laid_out(program: Program, given: list[Given]) -> list[Given]:
    """Operands as the program wants them."""
    operands = (operand for step in program.steps for operand in step.operands)
    return [(operand.laid_out(x), has) for operand, (x, has) in zip(operands, given, strict=True)]


def code_for(bundle: int | None, dtype: torch.dtype) -> Compiled:
    """The code that takes bundles of a size, or rows one after the other."""
    code = compiled(dtype) if bundle is None else bundlers(dtype)[bundle]
    assert code is not None
    return code


def in_bundles(start: Tensor, lanes: int) -> Tensor:
    """[..., forms, elements] -> [..., forms / lanes, elements, lanes], with zeros up to whole bundles."""
    forms, elements = start.shape[-2:]
    return pad(start, whole(forms, lanes), elements).unflatten(-2, (-1, lanes)).mT.contiguous()


def rows_at_once(job: Job, start: Tensor, threads: int) -> int:
    """Rows that a thread takes at a time, one after the other."""
    return max(1, min(job.alone.rows_at_once(start.element_size()), job.most_rows // threads))


def numbers_of_steps(program: Program, operands: list[Given]) -> np.ndarray:
    """The steps as numbers [steps, STEP]; the tensors must live as long as these are used."""
    numbers = np.zeros((len(program.steps), STEP), dtype=np.int64)
    given = iter(operands)
    for row, step in zip(numbers, program.steps, strict=True):
        layer = step.layer
        row[0] = step.kind
        for i, operand in enumerate(step.operands):
            row[1 + 3 * i : 4 + 3 * i] = _operand(*next(given), operand.per_image)
        row[10:GRADIENTS] = (layer.height, layer.width, layer.channels, *step.window, step.halo)
    return numbers


def run(entry: Entry, task: list[int], threads: int) -> None:
    """Calls the compiled code until all is done: handlers of signals have their turn in between.

    Raises:
        MemoryError: If there is not enough of it for a few rows.
        OutOfTime: If the deadline has passed.
        BaseException: What a handler raises; nothing is running any more then.
    """
    numbers = np.array(task, dtype=np.int64)
    # Struct Progress of substitute.c: the next portion, and where each thread stands, two numbers.
    progress = np.zeros(1 + 2 * threads, dtype=np.int64)
    addresses = ctypes.c_void_p(numbers.ctypes.data), ctypes.c_void_p(progress.ctypes.data)
    state: int = Ended.UNFINISHED
    while state == Ended.UNFINISHED:
        check_deadline()
        state = entry(addresses[0], threads, parallel(), addresses[1], PIECE_SECONDS)
    if state == Ended.NO_MEMORY:
        raise MemoryError("no memory for a few rows of back-substitution")


def _operand(x: Tensor, has_members: bool, per_image: bool) -> tuple[int, int, int]:
    """Address, and numbers from one member and from one image to the next; zero where they share it."""
    size = x[0].numel() if has_members else x.numel()
    images = x.shape[int(has_members)]
    return x.data_ptr(), size * has_members, size // images if per_image and images > 1 else 0


def _grid(job: Job, program: Program, elements: int) -> tuple[int, ...]:
    """The starting rows: their patch, the layer, and where each position's patch begins."""
    layer, reach = program.layer, job.reach
    stored = (layer.height, layer.width) if reach is None else reach.kernel
    channels = elements // (stored[0] * stored[1])
    columns, stride, padding = (1, (0, 0), (0, 0)) if reach is None else (reach.grid[1], reach.stride, reach.padding)
    return (*stored, channels, layer.height, layer.width, layer.channels, program.halo, columns, *stride, *padding)
