"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

import certtrain
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.cli.process.waiting import SETTINGS


@dataclass(frozen=True)
class Machine:
    """Processor, how its threads are used, and versions."""

    cpu: str
    cores: int
    threads: int
    waiting: str
    system: str
    python: str
    torch: str
    auto_lirpa: str
    certtrain: str

    @staticmethod
    def this() -> Machine:
        """The one that runs this; it may lack auto_LiRPA, which not every section compares with."""
        return Machine(
            cpu=_cpu(),
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            waiting=_waiting(),
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            torch=torch.__version__,
            auto_lirpa=compat.version() if compat.available() else "none",
            certtrain=certtrain.__version__,
        )

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)} on {self.cores} cores"
        return f"{self.cpu}, {threads}: certtrain {self.certtrain}, auto_LiRPA {self.auto_lirpa}, torch {self.torch}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _waiting() -> str:
    """What the environment says about how threads wait for each other."""
    told = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    return ", ".join(told) or "the OpenMP library's default"
