"""certtrain: train networks whose robustness can be proved, and prove it.

    import certtrain
    bounds = certtrain.bound(model, certtrain.Box.linf(images, eps=0.1), relaxation="deeppoly",
                             spec=certtrain.margin_spec(labels, num_classes=10))
    verdicts = certtrain.certify(model, images, labels, eps=0.1)
    network = certtrain.networks.from_onnx("network.onnx")
    property = certtrain.read_vnnlib("property.vnnlib", network.input_shape)
    decision = certtrain.decide(network, property, timeout_s=60)
    run = certtrain.train(["method=grad", "eps=0.1"])
    certtrain.Run.load(run.directory).ledger
    certtrain.runs("outputs/**")

Names are resolved when they are first used, so that `import certtrain` costs nothing. `certtrain.certify` and
`certtrain.runs` are functions; the packages in which they live have the same names and are imported from:
`from certtrain.certify import Attack`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certtrain import networks
    from certtrain.bounds import Bounds, Box, Relaxation, margin_spec, relaxations
    from certtrain.bounds.api import bound
    from certtrain.certify import certify
    from certtrain.certify.decide import Decision, decide
    from certtrain.certify.properties import Property, read_vnnlib
    from certtrain.runs import Run, RunFailed, runs, train

__version__ = "0.1.0"

_HOME = {
    "Bounds": "certtrain.bounds",
    "Box": "certtrain.bounds",
    "Decision": "certtrain.certify.decide",
    "Property": "certtrain.certify.properties",
    "Relaxation": "certtrain.bounds",
    "Run": "certtrain.runs",
    "RunFailed": "certtrain.runs",
    "bound": "certtrain.bounds.api",
    "certify": "certtrain.certify",
    "decide": "certtrain.certify.decide",
    "margin_spec": "certtrain.bounds",
    "read_vnnlib": "certtrain.certify.properties",
    "relaxations": "certtrain.bounds",
    "runs": "certtrain.runs",
    "train": "certtrain.runs",
}
__all__ = [
    "Bounds",
    "Box",
    "Decision",
    "Property",
    "Relaxation",
    "Run",
    "RunFailed",
    "bound",
    "certify",
    "decide",
    "margin_spec",
    "networks",
    "read_vnnlib",
    "relaxations",
    "runs",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "networks":
        return import_module("certtrain.networks")
    raise AttributeError(f"module 'certtrain' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__") and name != "__getattr__")})


class _Package(ModuleType):
    """Keeps its functions where the import system would put a package of the same name in their place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and _HOME.get(name) == value.__name__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
