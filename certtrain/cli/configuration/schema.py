"""The configuration, typed and range-checked; a key that is not declared here does not exist."""

from __future__ import annotations

from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from certtrain.cli.configuration.complaints import complaint
from certtrain.cli.configuration.explain import explain
from certtrain.errors import ConfigError

Node = dict[str, Any]


class Strict(BaseModel):
    """Immutable, without unknown keys, and without quiet conversions such as true -> 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Augment(Strict):
    """See conf/data."""

    crop: int = Field(ge=0)
    flip: bool


class Data(Strict):
    """See conf/data."""

    name: str
    source: Node
    path: str | None
    batch_size: int = Field(ge=1)
    test_batch_size: int = Field(ge=1)
    validation: float = Field(ge=0, lt=1)
    split_seed: int = Field(ge=0, lt=2**32)
    max_duplicates: float = Field(ge=0, le=1)
    augment: Augment


class Named(BaseModel):
    """See conf/verifier; the options of each verifier, and a relaxation's backend, are checked by its own dataclass."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> Node:
        """What no field declares."""
        return dict(self.model_extra or {})


class Relaxation(Named):
    """See conf/relaxation; the options of each relaxation are checked by its own dataclass."""

    backend: str


class Pgpe(Strict):
    """See conf/method/pgpe.yaml."""

    sigma: float = Field(gt=0)
    population_size: int = Field(ge=2, multiple_of=2)
    strategy: Literal["vmap", "loop", "auto"]
    member_chunk: int = Field(ge=1)
    batch_per_generation: int | None = Field(ge=1)
    fitness: Literal["raw", "centered_ranks", "normalized"]
    control_variate: Literal["none", "gradient", "rgs"] = "none"
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


class WarmStart(Strict):
    """See conf/config.yaml."""

    path: str | None
    epochs: int = Field(ge=0)


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


class Sweep(Strict):
    """See conf/config.yaml."""

    fail_fast: bool


class Stop(Strict):
    """See conf/config.yaml."""

    patience: int | None = Field(default=None, ge=1)


class Validation(Strict):
    """See conf/config.yaml."""

    relaxation: str | None = None
    images: int | None = Field(default=None, ge=1)


class Sam(Strict):
    """See conf/config.yaml."""

    rho: float | None = Field(default=None, gt=0, allow_inf_nan=False)


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


class Wandb(Strict):
    """See conf/logger/wandb.yaml."""

    project: str = Field(default="certtrain", min_length=1)
    entity: str | None = None
    group: str | None = None
    artifacts: tuple[Literal["checkpoint", "ledger", "record"], ...] = Field(
        default=("checkpoint", "ledger", "record"), strict=False
    )
    images: int = Field(default=32, ge=0)


class Folder(Strict):
    """A view that is files: see conf/logger/csv.yaml and tensorboard.yaml."""

    folder: str = Field(min_length=1)


class Logger(Strict):
    """Views of a run beside its record, any number of them; see conf/logger."""

    wandb: Wandb | None = None
    tensorboard: Folder | None = None
    csv: Folder | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, value: Any) -> Any:
        """A run that was recorded when there was one logger, with a name, can still be read."""
        if not isinstance(value, dict) or value.get("name") not in ("local", "wandb"):
            return value
        kept = {key: value[key] for key in ("project", "group") if value.get(key) is not None}
        return {"wandb": kept} if value["name"] == "wandb" else {}


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
