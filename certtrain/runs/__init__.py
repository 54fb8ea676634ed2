"""Runs from Python: what they left, as objects and tables, and new ones from a notebook or a script.

    run = certtrain.train(["method=grad", "eps=0.1"])      a job in a process of its own, as the command line runs it
    run = certtrain.Run.load("outputs/2026-01-31/12-00-00")
    run.config, run.summary, run.metrics, run.ledger, run.network, run.figures, run.certifications
    certtrain.runs("outputs/**")                           a table of all, damaged and unfinished ones among them

`run` reads one directory and `table` many; `state` says how far a run is; `frames` makes tables of records. `training`
starts a job (`process`), for which `own` turns classes and `own_data` data sets into overrides. This room stands beside
`certtrain.cli`, on all others; nothing reads it.
"""

from certtrain.runs.run import Run
from certtrain.runs.table import runs
from certtrain.runs.training import RunFailed, train

__all__ = ["Run", "RunFailed", "runs", "train"]
