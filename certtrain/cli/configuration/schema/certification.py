"""What a run is asked when it is trained, and who answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from certtrain.cli.configuration.schema.nodes import Strict


class Attack(Strict):
    """See conf/certify/attack."""

    name: Literal["pgd", "ensemble"] = "pgd"
    steps: int = Field(ge=0)
    restarts: int = Field(ge=1)
    queries: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _queries_belong_to_the_ensemble(self) -> Attack:
        if (self.name == "ensemble") != (self.queries is not None):
            raise ValueError(
                f"queries is for certify/attack=ensemble, which needs it; got {self.queries} with {self.name}"
            )
        return self


class Certify(Strict):
    """See conf/certify."""

    enabled: bool
    verifiers: tuple[str, ...] = Field(strict=False)
    cascade: Literal["all", "first"] = "all"
    limit: int | None = Field(ge=1)
    timeout_s: float | None = Field(gt=0)
    memory_mb: int = Field(ge=1)
    arithmetic: Literal["float64", "sound"]
    attack: Attack

    @field_validator("verifiers", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) for name in value):
            raise ValueError(
                f"must be a list of verifiers such as [ibp,deeppoly], at least one, got {value!r}; "
                "certify.enabled=false certifies nothing"
            )
        return value
