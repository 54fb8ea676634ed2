"""Executors: what carries rows back to the input. Which one does is decided here and nowhere else.

`tensors` knows all operations and devices, and leaves the end of the way to a faster one that covers it: `compiled`, C
on CPUs. One for GPUs would stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from certtrain.bounds.executors.base import Executor
from certtrain.bounds.executors.compiled.executor import Compiled
from certtrain.bounds.executors.tensors import TensorOperations

ExecutorName = Literal["auto", "tensors"]
EXECUTORS: Mapping[str, Executor] = {"auto": TensorOperations((Compiled(),)), "tensors": TensorOperations()}

__all__ = ["EXECUTORS", "Compiled", "Executor", "ExecutorName", "TensorOperations"]
