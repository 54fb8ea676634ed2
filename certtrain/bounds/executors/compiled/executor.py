"""Rows carried back by compiled code, as an executor."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certtrain.bounds.executors.base import Executor
from certtrain.bounds.executors.compiled.build import bundlers, compiled
from certtrain.bounds.executors.compiled.bundling import Bundling, Cheapest
from certtrain.bounds.executors.compiled.call import substitute
from certtrain.bounds.executors.compiled.program import chain, operands, reads_everything
from certtrain.bounds.executors.compiled.steps import Operands
from certtrain.bounds.executors.compiled.task import Job
from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.selection import RowIndex, Selection
from certtrain.networks.kernels import is_differentiated


@dataclass(frozen=True)
class Compiled(Executor):
    """See `executors.compiled`.

    Attributes:
        bundling: How rows are laid out.
    """

    bundling: Bundling = field(default_factory=Cheapest)

    def covers(self, descent: Descent) -> int | None:
        """See `Executor`: the first operations behind the input, as far as the network does not branch."""
        passage, like = descent.passage, descent.like
        if like.device.type != "cpu" or compiled(like.dtype) is None or is_differentiated(*_tensors(descent)):
            return None
        first, last = passage.anchor.index, chain(passage.graph, passage.anchor)
        if descent.linearization.shifts and not reads_everything(passage.graph, first, last):
            return None
        return last if last > first else None

    def lower(self, descent: Descent, selection: Selection, wanted: Tensor | None = None) -> Tensor:
        """See `Executor`."""
        ((_, start),) = descent.carried.pending.items()
        # Slopes or multipliers that were given in another type than the box have made rows of theirs.
        data = start.flat.to(descent.like.dtype)
        job = self.job(descent, selection.indices())
        given = Operands(descent.passage.values, descent.linearization, descent.passage.anchor)
        tensors = [x.to(data.dtype) for x in operands(job.program(job.bundle), given)]
        carried = descent.carried.constant
        constant = data.new_zeros((1, data.shape[1])) if carried is None else carried.to(data.dtype)
        chosen = None if wanted is None else wanted.to(data.dtype).flatten()
        return substitute(job, data, constant, tensors, chosen).reshape(selection.shape)

    def job(self, descent: Descent, rows: RowIndex) -> Job:
        """What there is to do for some of the rows."""
        ((index, start),) = descent.carried.pending.items()
        passage, dtype = descent.passage, descent.like.dtype
        code = compiled(dtype)
        assert code is not None
        # Without a budget it keeps to the cache by itself, in every thread.
        most = sys.maxsize if passage.memory_mb is None else descent.rows_at_once(0)
        bundle = self.bundling.of_bounds(rows, bundlers(dtype), most // torch.get_num_threads())
        return Job(
            passage.graph,
            passage.anchor,
            descent.linearization,
            index,
            start.reach,
            rows,
            self.bundling,
            bundle,
            code.lanes,
            most,
        )


def _tensors(descent: Descent) -> list[Tensor]:
    return [descent.like, *descent.passage.values.values(), *descent.linearization.tensors]
