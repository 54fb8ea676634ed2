"""What runs had of before there were some keys, whatever is the default of these now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Node -> its later keys -> what they would have been.
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "certify": {"cascade": "all"},
    "pgpe": {"control_variate": "none", "control_samples": None, "shrinkage": "none"},
}
