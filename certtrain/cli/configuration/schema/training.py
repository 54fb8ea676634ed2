"""What bounds a training takes, how long and where, and how its weights move."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from certtrain.cli.configuration.schema.nodes import Named, Node, Strict


class Relaxation(Named):
    """See conf/relaxation; the options of each relaxation are checked by its own dataclass."""

    backend: str


class EpsSchedule(Strict):
    """See conf/config.yaml."""

    warmup: float = Field(ge=0)
    ramp: float = Field(ge=0)
    scale: float = Field(gt=0)
    shape: Literal["linear", "smooth", "constant"] = "linear"


class WeightSchedule(Strict):
    """See conf/config.yaml."""

    start: float = Field(ge=0, le=1)
    end: float = Field(ge=0, le=1)
    warmup: float = Field(ge=0)
    ramp: float = Field(ge=0)


class Schedule(Strict):
    """See conf/config.yaml."""

    eps: EpsSchedule
    natural_weight: WeightSchedule


class Optimizer(BaseModel):
    """See conf/optimizer; all but clip_norm are arguments of the target."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    lr: float = Field(gt=0, allow_inf_nan=False)
    clip_norm: float | None = Field(gt=0)

    @property
    def target(self) -> Node:
        """The node to instantiate."""
        return {"lr": self.lr, **(self.model_extra or {})}


class Stop(Strict):
    """See conf/config.yaml."""

    patience: int | None = Field(default=None, ge=1)


class Validation(Strict):
    """See conf/config.yaml."""

    relaxation: str | None = None
    images: int | None = Field(default=None, ge=1)


class Trainer(Strict):
    """See conf/trainer."""

    accelerator: Literal["cpu", "gpu", "auto"]
    devices: int = Field(ge=1)
    num_nodes: int = Field(default=1, ge=1)
    timeout_s: float = Field(default=60.0, gt=0)
    max_epochs: int = Field(ge=1)
    max_steps: int
    log_every_n_steps: int = Field(ge=1)
    validate_every: int = Field(ge=1)
    accumulate: int = Field(default=1, ge=1)
    forwards: Literal["float32", "bfloat16"] = "float32"

    @property
    def ranks(self) -> int:
        """Processes of the run."""
        return self.devices * self.num_nodes

    @model_validator(mode="after")
    def _some_steps(self) -> Trainer:
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"max_steps must be at least 1, or -1 for no limit, got {self.max_steps}")
        return self


class Checkpoint(Strict):
    """See conf/config.yaml."""

    every_generations: int = Field(ge=1)


class Preemption(Strict):
    """See conf/config.yaml."""

    signals: tuple[Literal["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"], ...] = Field(strict=False)
    exit_code: int = Field(ge=0, le=255)


class Sweep(Strict):
    """See conf/config.yaml."""

    fail_fast: bool
