"""Where images come from, and how they become batches."""

from __future__ import annotations

from pydantic import Field

from certtrain.cli.configuration.schema.nodes import Node, Strict


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
