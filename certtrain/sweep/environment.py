"""The environment of a fresh process: nothing in it says which rank of which other run it would be."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Set by Lightning, torchrun or a SLURM step for the processes of *one* run. A job that inherits them takes itself for a
# rank of that run, and starts no ranks of its own.
RANKS = frozenset(
    {
        *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS", "SLURM_TASK_PID"),
        *("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_LAUNCH_NODE_IPADDR"),
        # A job has its own W&B run and its own connection to the service.
        *("WANDB_RUN_ID", "WANDB_SERVICE"),
    }
)
PREFIXES = ("MASTER_", "PL_", "TORCHELASTIC_", "SLURM_STEP", "SLURM_SRUN_")


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """The same environment without what names a process's place among the ranks of a run."""
    return {k: v for k, v in environment.items() if k not in RANKS and not k.startswith(PREFIXES)}


def for_job(environment: Mapping[str, str], side_by_side: int = 1, processes: int = 1) -> dict[str, str]:
    """The environment of a job.

    Args:
        environment: Of the sweep.
        side_by_side: Jobs that run on this machine at a time; they share its cores, unless OMP_NUM_THREADS says how.
        processes: Of this job on this machine.
    """
    clean = {**cleaned(environment), "PYTHONUNBUFFERED": "1"}
    if side_by_side > 1:
        clean.setdefault("OMP_NUM_THREADS", str(max(1, cores() // (side_by_side * processes))))
    return clean


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
