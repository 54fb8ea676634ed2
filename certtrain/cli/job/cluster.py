"""The process group of a run whose ranks were started outside of it, by torchrun, srun or `supervisor`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from certtrain.cli.configuration.schema import Node
from certtrain.errors import CerttrainError, one_line

# Lightning's order: torchrun may itself run inside a job of the others.
ENVIRONMENTS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
# Until all ranks are there and the first one has checked the command, in which it may download a data set. Exchanges
# of a generation have a timeout of their own.
START_S = 1800.0


@dataclass(frozen=True)
class Orders:
    """What the first rank tells the others.

    Attributes:
        node: The resolved configuration.
        directory: The run directory, absolute.
    """

    node: Node
    directory: Path


def detect() -> ClusterEnvironment | None:
    """Where this process stands among others that were started with it; None if it was started alone."""
    environment = next((kind() for kind in ENVIRONMENTS if kind.detect()), None)
    return environment if environment is not None and environment.world_size() > 1 else None


def join(environment: ClusterEnvironment) -> None:
    """Meets the other ranks; numbers on a GPU are exchanged by NCCL, all others by gloo.

    Raises:
        CerttrainError: If they do not come.
    """
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(environment.local_rank() % torch.cuda.device_count())
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    rank, size = environment.global_rank(), environment.world_size()
    try:
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=timedelta(seconds=START_S))
    except (RuntimeError, ValueError) as error:
        raise CerttrainError(f"rank {rank} did not find the other {size - 1} ranks: {one_line(error)}") from error


def leave() -> None:
    """Ends the exchange: no rank waits for this one any more."""
    if dist.is_initialized():
        dist.destroy_process_group()


def tell(orders: Orders | None) -> None:
    """From the first rank to the others, if there are any: what to run, and where; None if nothing is left to do."""
    if dist.is_initialized():
        dist.broadcast_object_list([orders], src=0)


def hear() -> Orders | None:
    """What the first rank tells, on the others.

    Raises:
        SystemExit: If it ended instead; it has said why.
    """
    box: list[Orders | None] = [None]
    try:
        dist.broadcast_object_list(box, src=0)
    except RuntimeError:
        raise SystemExit(2) from None
    return box[0]
