"""What runs had of before there were some keys, whatever is the default of these now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Classes of certtrain have got later keys; those of other people are what they are.
OURS = "certtrain."
# Later keys -> what they would have been, in every configuration.
ALWAYS: Mapping[str, Any] = {
    "init": "default",
    "batch_norm": "running",
    "average": {"_target_": "certtrain.training.average.NoAverage"},
    "stop": {"patience": None},
    # Those that go on are validated as the default has it from there on.
    "validation": {"relaxation": None, "images": 1000},
    "sam": {"rho": None},
    "schedule": {"eps": {"shape": "linear"}},
    "loss": {"shi": 0.0},
    "trainer": {"accumulate": 1, "forwards": "float32"},
    "fork": None,
}
# Node -> its later keys -> what they would have been, where there is such a node.
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "certify": {"cascade": "all", "arithmetic": "float64", "attack": {"name": "pgd"}},
    "pgpe": {"control_variate": "none", "control_samples": None, "shrinkage": "none", "sigma_unit": "absolute"},
    "rgs": {"sigma_unit": "absolute"},
}


def completed(node: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of any version with the keys that it would have had."""
    return _merged(
        {**ALWAYS, **{key: then for key, then in BEFORE.items() if isinstance(node.get(key), Mapping)}}, node
    )


def _merged(then: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Both, where the second one decides."""
    found = {**then, **own}
    for key, value in then.items():
        node = own.get(key)
        # The arguments of another target are none of this one's.
        if isinstance(value, Mapping) and isinstance(node, Mapping) and "_target_" not in value:
            if str(node.get("_target_", OURS)).startswith(OURS):
                found[key] = _merged(value, node)
            else:
                found[key] = node
    return found
