"""How gradients are estimated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from certtrain.cli.configuration.schema.nodes import Node, Strict


class Pgpe(Strict):
    """See conf/method/pgpe.yaml."""

    sigma: float = Field(gt=0)
    population_size: int = Field(ge=2, multiple_of=2)
    strategy: Literal["vmap", "loop", "auto"]
    member_chunk: int = Field(ge=1)
    batch_per_generation: int | None = Field(ge=1)
    fitness: Literal["raw", "centered_ranks", "normalized"]
    control_variate: str = "none"  # names: `certtrain.gradients.registry`, which needs torch
    control_samples: int | Literal["auto"] | None = None
    shrinkage: Literal["none", "james_stein", "james_stein_layers"] = "none"
    sigma_unit: Literal["absolute", "relative"] = "absolute"
    sigma_rule: Node
    noise: Node
    layer_scale: dict[str, float] | None
    parallel: Literal["population", "hybrid"]
    groups: int | None = Field(ge=1)
    max_dropped: float = Field(ge=0, le=1)

    @field_validator("control_samples", mode="before")
    @classmethod
    def _samples(cls, value: Any) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool)
        if not (value in (None, "auto") or (number and value >= 2 and value % 2 == 0)):
            raise ValueError(f"must be an even number of at least 2, auto or null, got {value!r}")
        return value

    @model_validator(mode="after")
    def _groups_belong_to_hybrid(self) -> Pgpe:
        if (self.parallel == "hybrid") != (self.groups is not None):
            raise ValueError(f"groups is for parallel=hybrid, which needs it; got {self.parallel} with {self.groups}")
        return self


class Rgs(Strict):
    """See conf/method/rgs.yaml."""

    sigma: float = Field(gt=0)
    samples: int = Field(ge=1)
    sampling: Literal["antithetic", "independent"]
    strategy: Literal["loop", "vmap"]
    member_chunk: int = Field(ge=1)
    sigma_unit: Literal["absolute", "relative"] = "absolute"


class Sam(Strict):
    """See conf/config.yaml."""

    rho: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class WarmStart(Strict):
    """See conf/config.yaml."""

    path: str | None
    epochs: int = Field(ge=0)
