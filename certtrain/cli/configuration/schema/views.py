"""Who else sees the numbers of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from certtrain.cli.configuration.schema.nodes import Strict


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
