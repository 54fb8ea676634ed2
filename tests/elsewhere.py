"""A device that is not there: tensors that say they live elsewhere, and must not meet those of the CPU.

Their numbers are the CPU's, and so are the results. What is tested is that nothing is left behind or made in the wrong
place, which a GPU would refuse in the same way; no GPU is needed for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "elsewhere"

aten = torch.ops.aten
# What takes tensors from one device to another, and what reads one number.
TRAVEL = (aten._to_copy.default, aten.copy_.default, aten._local_scalar_dense.default)
# As on a GPU, whose tensors take indices of the CPU.
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
# As on a GPU, which takes numbers of the CPU for a scalar only in element-wise operations.
NO_SCALARS = (aten.cat.default, aten.stack.default, aten.index_select.default, aten.mm.default, aten.bmm.default)


class Elsewhere(Tensor):
    """A tensor that says it is elsewhere.

    Attributes:
        here: Its numbers.
    """

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=torch.device(NAME, 0),
        )
        found.here = here
        return found

    def __repr__(self) -> str:
        return f"Elsewhere({self.here!r})"

    def tolist(self) -> list:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


class _Making(TorchDispatchMode):
    """Tensors that are made there, or sent there, are there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def _call(func, args: tuple, kwargs: dict):
    read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = any(isinstance(x, Elsewhere) for x in read)
    if there and func not in TRAVEL:
        _check_together(func, args, read)
    if (device := kwargs.get("device")) is not None:
        there = torch.device(device).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    own_args, own_kwargs = tree_map_only(Elsewhere, lambda x: x.here, (args, kwargs))
    found = func(*own_args, **own_kwargs)
    written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if written and func._schema.returns:
        # In place: it returns what it was given.
        place = next(i for i, a in enumerate(func._schema.arguments) if a.name == written[0])
        return args[place] if place < len(args) else kwargs[written[0]]
    known = {id(x.here): x for x in read if isinstance(x, Elsewhere)}
    return tree_map_only(Tensor, lambda x: known.get(id(x)) or Elsewhere(x), found) if there else found


def _check_together(func, args: tuple, read: list[Tensor]) -> None:
    """Raises what a GPU would, where tensors of the CPU take part."""
    if func in INDEXED:
        together = isinstance(args[0], Elsewhere)
    else:
        left = [x for x in read if not isinstance(x, Elsewhere)]
        together = not left or (func not in NO_SCALARS and all(x.dim() == 0 for x in left))
    if not together:
        raise RuntimeError(f"{func}: all tensors must be on the same device, got {[str(x.device) for x in read]}")


def _known_to_torch() -> bool:
    """Tells torch of the device; it counts devices when it first differentiates, so that this must come before.

    Not where there is a GPU: torch holds one kind of accelerator for the one whose streams derivatives wait for.
    """
    if torch.cuda.is_available():
        return False
    hook = getattr(backend_registration, "_DummyPrivateUse1Hook", object)
    # Nobody should choose it by itself. There are no random numbers of its own, and autocast has something to turn off.
    absent = type(
        "Hook", (hook,), {"is_available": lambda self: False, "has_primary_context": lambda self, index: False}
    )
    functions = {
        "is_available": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "manual_seed_all": lambda seed: None,
        "_is_in_bad_fork": lambda: False,
        "get_amp_supported_dtype": lambda: [torch.bfloat16],
    }
    try:
        backend_registration._setup_privateuseone_for_python_backend(NAME, SimpleNamespace(**functions), absent())
    except (AttributeError, TypeError):  # torch offers it for trial, in some versions
        return False
    return True


available = _known_to_torch()


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """A device; inside, tensors can be made on it and moved there and back."""
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) is then an operation like others
    try:
        with _Making():
            yield torch.device(NAME, 0)
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
