"""What runs had of before there were some keys, whatever is the default of these now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Node -> its later keys -> what they would have been.
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "certify": {"cascade": "all", "arithmetic": "float64", "attack": {"name": "pgd"}},
    "pgpe": {"control_variate": "none", "control_samples": None, "shrinkage": "none"},
}


def completed(node: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """A node with what it had before there were some of its keys, those of nodes inside it among them."""
    nodes = {
        key: completed(node[key], value) if isinstance(node[key], dict) else node[key]
        for key, value in then.items()
        if isinstance(value, Mapping) and key in node
    }
    return {**then, **node, **nodes}
