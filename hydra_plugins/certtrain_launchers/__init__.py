"""certtrain's launchers, where Hydra looks for plugins; the parts they are made of are in certtrain.sweep.

The sweeper that searches is in `sweeper`.
"""

from __future__ import annotations

from typing import Any

from certtrain.sweep.basic import Basic as _Basic
from certtrain.sweep.launcher import FreshProcesses
from certtrain.sweep.parallel import Joblib as _Joblib
from certtrain.sweep.slurm import Submitit as _Submitit


class Basic(FreshProcesses):
    """See conf/hydra/launcher/basic.yaml."""

    def __init__(self) -> None:
        super().__init__(_Basic())


class Joblib(FreshProcesses):
    """See conf/hydra/launcher/joblib.yaml."""

    def __init__(self, **options: Any) -> None:
        super().__init__(_Joblib(**options))


class Submitit(FreshProcesses):
    """See conf/hydra/launcher/submitit.yaml."""

    def __init__(self, **options: Any) -> None:
        super().__init__(_Submitit(**options))
