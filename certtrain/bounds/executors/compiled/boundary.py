"""What the compiled code will read, compared with the tensors that it is given: behind an address there is no size.

Whoever calls, under autograd and vmap alike: kinds, layout, and every number of members, images and elements.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.executors.compiled.program import Program
from certtrain.bounds.executors.compiled.task import Given, Job
from certtrain.networks.ops import Shape


def check_task(job: Job, program: Program, members: int, tensors: list[Given], numbers: list[Given]) -> None:
    """Refuses tensors that are not what a program reads.

    Args:
        job: What to do.
        program: Of its two, the one that is followed.
        members: Of the population.
        tensors: Starting forms [batch or 1, forms, elements], what was added to them [batch or 1, forms], and operands
            before they are laid out.
        numbers: One for each row, [rows]: whether it is wanted, or derivatives in its bound.

    Raises:
        TypeError: If types, devices or layouts are not those that the code is compiled for.
        ValueError: If a tensor has another shape than what will be read of it.
    """
    _check_kinds([x for x, _ in (*tensors, *numbers)])
    images, named = _check_rows(job)
    forms, operands = tensors[0][0].shape[-2], tensors[2:]
    if named > forms:
        raise ValueError(f"compiled bounds: rows name {named} starting forms, there are {forms}")
    _check_shape("starting forms", tensors[0], members, images, (forms, _elements(job, program)))
    _check_shape("constants", tensors[1], members, images, (forms,))
    for given in numbers:
        _check_shape("numbers of rows", given, members, None, (len(job.rows),))
    wanted = [(step.kind, operand) for step in program.steps for operand in step.operands]
    for given, (kind, operand) in zip(operands, wanted, strict=True):
        name = f"what is read of {kind.name.lower()}"
        _check_shape(name, given, members, images if operand.per_image else None, operand.shape)


def _check_kinds(tensors: list[Tensor]) -> None:
    dtype = tensors[0].dtype
    if any(x.dtype != dtype or x.device.type != "cpu" or not x.is_contiguous() for x in tensors):
        kinds = {f"{x.dtype} on {x.device.type}{'' if x.is_contiguous() else ', not contiguous'}" for x in tensors}
        raise TypeError(
            "compiled bounds need contiguous tensors of one floating-point type on the CPU, got "
            + "; ".join(sorted(kinds))
        )


def _check_rows(job: Job) -> tuple[int, int]:
    """How many images and forms the rows name."""
    indices, count = (job.rows.image, job.rows.position, job.rows.form), len(job.rows)
    if any(x.dtype != torch.int32 or x.device.type != "cpu" or not x.is_contiguous() for x in indices):
        raise TypeError("compiled bounds need rows as contiguous int32 numbers on the CPU")
    if any(x.shape != (count,) for x in indices):
        raise ValueError(f"compiled bounds need three numbers of each row, got {[list(x.shape) for x in indices]}")
    # Without a sign, negative numbers are the largest of all.
    images, positions, forms = (int(x.numpy().view(np.uint32).max(initial=0)) + 1 for x in indices)
    most = 1 if job.reach is None else job.reach.positions
    if positions > most:
        raise ValueError(f"compiled bounds: rows name {positions} positions, there are {most}")
    return images, forms


def _elements(job: Job, program: Program) -> int:
    """Numbers of a starting form."""
    shape, layer = job.graph.ops[job.start].shape, program.layer
    pixels = layer.height * layer.width if job.reach is None else prod(job.reach.kernel)
    return pixels * (shape[0] if len(shape) == 3 else prod(shape))


def _check_shape(name: str, given: Given, members: int, images: int | None, rest: Shape) -> None:
    """An axis for members, if there are any; one for images, of which one may serve all; the rest."""
    x, has_members = given
    lead, shape = (members,) * has_members, tuple(x.shape)
    own, fits = shape[len(lead) :], shape[: len(lead)] == lead
    if images is not None:
        fits, own = fits and own[:1] != () and (own[0] == 1 or own[0] >= images), own[1:]
    if not fits or own != rest:
        axes = [*lead, *([] if images is None else [f"{images} or 1"]), *rest]
        raise ValueError(f"compiled bounds: {name} must be [{', '.join(map(str, axes))}], got {list(shape)}")
