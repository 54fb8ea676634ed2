"""One run: all nodes, and what must be true of several of them at once."""

from __future__ import annotations

from typing import Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator

from certtrain.cli.configuration.complaints import complaint
from certtrain.cli.configuration.explain import explain
from certtrain.cli.configuration.schema.certification import Certify
from certtrain.cli.configuration.schema.data import Data
from certtrain.cli.configuration.schema.methods import Pgpe, Rgs, Sam, WarmStart
from certtrain.cli.configuration.schema.nodes import Named, Node, Strict
from certtrain.cli.configuration.schema.training import (
    Checkpoint,
    Optimizer,
    Preemption,
    Relaxation,
    Schedule,
    Stop,
    Sweep,
    Trainer,
    Validation,
)
from certtrain.cli.configuration.schema.views import Logger
from certtrain.errors import ConfigError


class RunConfig(Strict):
    """One run. Numbers in the units that the YAML files under conf/ state."""

    eps: float = Field(ge=0, le=1)
    seed: int = Field(ge=0, lt=2**63)
    clip: tuple[float, float] = Field(strict=False)
    data: Data
    model: Node
    init: Literal["default", "shi"] = "default"
    batch_norm: Literal["running", "recomputed"] = "running"
    average: Node = Field(default_factory=lambda: {"_target_": "certtrain.training.average.NoAverage"})
    stop: Stop = Field(default_factory=Stop)
    validation: Validation = Field(default_factory=Validation)
    relaxation: Relaxation
    method: Literal["grad", "pgpe", "rgs"]
    pgpe: Pgpe | None = None
    rgs: Rgs | None = None
    sam: Sam = Field(default_factory=Sam)
    warm_start: WarmStart
    loss: Node
    schedule: Schedule
    optimizer: Optimizer
    scheduler: Node
    trainer: Trainer
    resume: str
    fork: str | None = None
    checkpoint: Checkpoint
    preemption: Preemption
    logger: Logger = Field(default_factory=Logger)
    certify: Certify
    verifier: dict[str, Named] = Field(default_factory=dict)
    sweep: Sweep

    @model_validator(mode="after")
    def _method_has_its_node(self) -> RunConfig:
        for name, node in (("pgpe", self.pgpe), ("rgs", self.rgs)):
            if (self.method == name) != (node is not None):
                raise ValueError(f"method {name} and the node {name} belong together: choose both with method={name}")
        if self.pgpe is not None:
            self._refuse_idle_ranks(self.pgpe)
        if self.clip[0] > 0 or self.clip[1] < 1:
            raise ValueError(f"clip must be [low, high] and contain all pixels, 0 to 1, got {list(self.clip)}")
        return self

    @model_validator(mode="after")
    def _warm_start_ends(self) -> RunConfig:
        epochs = self.warm_start.epochs
        if epochs > 0 and self.method == "grad":
            raise ValueError(
                "warm_start.epochs: method=grad takes plain gradients anyway; choose pgpe or rgs, or 0 epochs"
            )
        if epochs >= self.trainer.max_epochs:
            raise ValueError(f"warm_start.epochs must be less than trainer.max_epochs, got {epochs}")
        return self

    @model_validator(mode="after")
    def _parts_are_differentiated(self) -> RunConfig:
        vectorised = self.rgs is not None and self.rgs.strategy == "vmap"
        if self.trainer.accumulate > 1 and (self.method == "pgpe" or vectorised):
            reason = "rgs.strategy=vmap takes all at once" if vectorised else "method=pgpe reads values of the whole"
            raise ValueError(f"trainer.accumulate is for gradients of one part after the other: {reason}")
        if self.sam.rho is not None and self.method != "grad":
            reason = "reads values at random weights" if self.method == "pgpe" else "takes gradients at random weights"
            raise ValueError(f"sam.rho is for method=grad, whose gradient is the way up: method={self.method} {reason}")
        if self.stop.patience is not None and self.data.validation == 0:
            raise ValueError("stop.patience needs validation: data.validation=0 holds out no image")
        if self.validation.relaxation is not None and self.data.validation == 0:
            raise ValueError("validation.relaxation needs validation: data.validation=0 holds out no image")
        return self

    def _refuse_idle_ranks(self, pgpe: Pgpe) -> None:
        ranks = self.trainer.ranks
        groups = ranks if pgpe.groups is None else pgpe.groups
        if ranks % groups:
            raise ValueError(f"pgpe.groups must divide the number of ranks, {ranks}, got {groups}")
        if pgpe.population_size // 2 < groups:
            raise ValueError(
                f"pgpe.population_size={pgpe.population_size} has {pgpe.population_size // 2} antithetic pairs, "
                f"too few for {groups} " + ("ranks" if pgpe.groups is None else "groups")
            )


def plain(config: DictConfig) -> Node:
    """The resolved configuration as plain containers.

    Raises:
        ConfigError: If an interpolation leads nowhere or a mandatory value is missing.
    """
    # Hydra's own node is not complete before a job runs, and is not part of what is run.
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        node = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def parse(node: Node) -> RunConfig:
    """Types and checks a resolved configuration.

    Raises:
        ConfigError: Naming the first key that is wrong, what it is and what would be right.
    """
    try:
        return RunConfig.model_validate(node)
    except ValidationError as error:
        raise ConfigError(complaint(error)) from error
