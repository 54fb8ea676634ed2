"""What nodes have in common: what is typed stays what it is, and unknown keys are refused."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Node = dict[str, Any]


class Strict(BaseModel):
    """Immutable, without unknown keys, and without quiet conversions such as true -> 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Named(BaseModel):
    """See conf/verifier; the options of each verifier, and a relaxation's backend, are checked by its own dataclass."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> Node:
        """What no field declares."""
        return dict(self.model_extra or {})
