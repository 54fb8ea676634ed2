"""All contact with auto_LiRPA: importing it, its versions, and using its stateful modules as a function.

auto_LiRPA 0.3 is the newest release on PyPI and asks for torch < 1.13; newer ones are on GitHub only. 0.3
needs four shims on a current torch and numpy, and each is installed only where what it replaces is missing:

1. `numpy.lib.arraysetops`, gone in numpy 2, from which it imports a function that it never calls;
2. `torch.onnx.symbolic_helper._set_opset_version`, gone in torch 2, which sets its parser's operator set;
3. indexing of `torch._C.Node`, gone in torch 2, by which it reads the attributes of a traced operation;
4. `BoundedModule._named_members`, which does not know the argument `remove_duplicate` of torch 2.

Importing it also changes the process: it configures the root logger to write to stdout, puts a warnings
filter before all others and turns TorchScript's profiling executor off. The first two are undone here; it
relies on the last.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certtrain.errors import ConfigError

# Its declared dependencies cannot be met on a current torch. It imports these, besides torch and numpy.
INSTALL = "pip install --no-deps auto_LiRPA==0.3, and appdirs, tqdm and setuptools"
NUMPY_MODULE = "numpy.lib.arraysetops"


@functools.cache
def load() -> types.ModuleType:
    """The auto_LiRPA package, imported once with what its version needs.

    Raises:
        ConfigError: If it is not installed, or is installed and cannot be imported.
    """
    with _process_settings_kept(), _missing_names_supplied():
        try:
            package = importlib.import_module("auto_LiRPA")
        except Exception as error:  # an import can fail in any way; all of them mean that it cannot be used
            absent = isinstance(error, ModuleNotFoundError) and error.name == "auto_LiRPA"
            raise ConfigError(
                "relaxation.backend=auto_lirpa needs auto_LiRPA, which "
                + ("is not installed" if absent else f"cannot be imported ({first_line(error)})")
                + f": {INSTALL}, or use relaxation.backend=native"
            ) from error
    _accept_remove_duplicate(package.BoundedModule)
    return package


def available() -> bool:
    """Whether auto_LiRPA can be used here."""
    try:
        load()
    except ConfigError:
        return False
    return True


def version() -> str:
    """The version of auto_LiRPA.

    Raises:
        ConfigError: If it cannot be used.
    """
    return str(getattr(load(), "__version__", "of unknown version"))


def first_line(error: BaseException) -> str:
    """Kind and first line of an error, or where it was raised if it says nothing: for short messages."""
    if lines := str(error).strip().splitlines():
        return f"{type(error).__name__}: {lines[0]}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {frames[-1].name}" if frames else type(error).__name__


class BoundedNetwork:
    """A BoundedModule that every call finds as the first one found it, and that holds no parameters.

    auto_LiRPA keeps bounds, coefficients, shapes and inputs as attributes of its nodes. Here each call lends
    it the caller's tensors, and afterwards every node gets back the attributes that it had after
    construction.

    Args:
        network: A module whose parameters all take part, under names that differ after their last dot.
        example: [batch, *input_shape], in dtype and device of the network; only its shape matters.
        options: `bound_opts` of BoundedModule.

    Raises:
        ConfigError: If auto_LiRPA cannot be used.
        Exception: Whatever auto_LiRPA raises for a network that it cannot represent.
    """

    def __init__(self, network: nn.Module, example: Tensor, options: Mapping[str, Any]) -> None:
        package = load()
        # What is recorded must be the network itself: no casts of a surrounding autocast, and no inference
        # tensors, which autograd would refuse later.
        with (
            _process_settings_kept(),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(example.device.type, enabled=False),
        ):
            self._module: Any = package.BoundedModule(network, example, dict(options), device=example.device)
        self._module.eval()
        _start_rows_in(self._module, example.dtype)
        self._slots: dict[str, Any] = {}
        for node in self._module.modules():
            if node._parameters.get("param") is not None:
                node._parameters["param"] = None
                self._slots[node.ori_name.rpartition(".")[2]] = node
        # A tensor that is not lent would silently keep the value it was built with.
        if set(self._slots) != {name.rpartition(".")[2] for name, _ in network.named_parameters()}:
            raise NotImplementedError(f"it took over only {sorted(self._slots)} of the network's parameters")
        self._state = [(node, dict(node.__dict__)) for node in self._module.modules()]
        self._lock = threading.Lock()

    def bound(
        self, method: str, tensors: Mapping[str, Tensor], box: tuple[Tensor, Tensor], spec: Tensor, both: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Bounds of `spec @ network(x)` over all x in a box.

        Args:
            method: "IBP", "CROWN-IBP" or "CROWN".
            tensors: What to use as the network's parameters, by name; differentiable.
            box: Lower and upper corner, each [batch, *input_shape].
            spec: [batch, rows, outputs].
            both: Whether upper bounds are wanted.

        Returns:
            Lower bounds [batch, rows], and upper ones or None.

        Raises:
            Exception: Whatever auto_LiRPA raises.
        """
        package, (lower, upper) = load(), box
        # The corners themselves and not a radius: boxes that are clipped have none.
        corners = package.PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)
        x = package.BoundedTensor(((lower + upper) / 2).detach(), corners)
        with self._lock:
            try:
                self._lend(tensors)
                # Rules read shapes, batch size included, that only a plain forward pass records.
                self._module(x)
                bounds = self._module.compute_bounds(x=(x,), C=spec, method=method, bound_upper=both)
            finally:
                self._restore()
        return bounds[0], bounds[1] if both else None

    def _lend(self, tensors: Mapping[str, Tensor]) -> None:
        # auto_LiRPA sets `requires_grad` of what it holds to the node's training mode, in place. So it gets
        # an alias of each tensor, and the mode under which that changes nothing.
        for name, node in self._slots.items():
            tensor = tensors[name]
            alias = tensor.view_as(tensor) if tensor.requires_grad else tensor.detach()
            node.__dict__["_parameters"] = {"param": alias}
            node.training = alias.requires_grad

    def _restore(self) -> None:
        for node, attributes in self._state:
            node.__dict__.clear()
            node.__dict__.update(attributes)


@contextmanager
def _process_settings_kept() -> Iterator[None]:
    """Undoes what auto_LiRPA does to the root logger and the warnings filters; drops warnings meanwhile."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        # Recording drops warnings whatever the filters say, and importing auto_LiRPA changes the filters.
        with warnings.catch_warnings(record=True):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _missing_names_supplied() -> Iterator[None]:
    """Shims 1 to 3. The first is needed during the import only and removed after it."""
    supplied = importlib.util.find_spec(NUMPY_MODULE) is None
    if supplied:
        stand_in: Any = types.ModuleType(NUMPY_MODULE)
        stand_in.isin = np.isin
        sys.modules[NUMPY_MODULE] = stand_in
    helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
    if not hasattr(helper, "_set_opset_version"):
        helper._set_opset_version = _set_opset_version
    node: Any = torch._C.Node
    if not hasattr(node, "__getitem__"):
        node.__getitem__ = _node_attribute
    try:
        yield
    finally:
        if supplied:
            del sys.modules[NUMPY_MODULE]


def _set_opset_version(opset: int) -> None:
    """Shim 2: selects the ONNX operator set that traced operations are translated to."""
    for name in ("torch.onnx._internal.torchscript_exporter._globals", "torch.onnx._globals"):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        module.GLOBALS.export_onnx_opset_version = opset
        return
    raise ConfigError(f"auto_LiRPA cannot parse networks with torch {torch.__version__}: no globals in torch.onnx")


def _node_attribute(node: Any, name: str) -> Any:
    """Shim 3: an attribute of a traced operation; the accessor is named after the attribute's kind."""
    return getattr(node, node.kindOf(name))(name)


def _accept_remove_duplicate(bounded_module: Any) -> None:
    """Shim 4: drops an argument that the class's own version of the method does not know."""
    members = bounded_module._named_members
    if "remove_duplicate" in inspect.signature(members).parameters:
        return

    def named_members(self: nn.Module, *args: Any, remove_duplicate: bool = True, **kwargs: Any) -> Any:
        return members(self, *args, **kwargs)

    bounded_module._named_members = named_members


def _start_rows_in(module: Any, dtype: torch.dtype) -> None:
    """Makes the rows that a back-substitution starts from be of the network's dtype.

    0.3 creates some of them in the default dtype, so that float64 convolutions in matrix mode would fail. Its
    notice that matrix mode is slow is dropped.
    """
    original: Callable[..., Any] | None = getattr(module, "get_sparse_C", None)
    if original is None:
        return

    @functools.wraps(original)
    def get_sparse_c(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            rows, *rest = original(*args, **kwargs)
        return (rows.to(dtype) if isinstance(rows, Tensor) else rows, *rest)

    module.get_sparse_C = get_sparse_c
