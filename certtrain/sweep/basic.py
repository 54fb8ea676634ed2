"""One job after the other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from certtrain.sweep import process
from certtrain.sweep.environment import for_job
from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.runner import Runner
from certtrain.sweep.sweep import Sweep


@dataclass(frozen=True)
class Basic(Runner):
    """See conf/hydra/launcher/basic.yaml. What a job prints is printed."""

    side_by_side: ClassVar[bool] = False

    def run(self, jobs: Iterable[Job], sweep: Sweep) -> None:
        def run_one(job: Job) -> Outcome:
            return process.run(job, for_job(os.environ), sweep.stop, sweep.board.passed_on)

        for job in jobs:
            if sweep.stop.asked:
                return
            sweep.run(job, run_one)
