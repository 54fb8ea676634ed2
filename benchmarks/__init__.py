"""Speed of the native bounds, measured against auto_LiRPA on the machine at hand.

`python -m benchmarks`, or `make bench`, prints tables with ratios and writes them as JSON and a picture.

`settings.py` says how much is measured, `cases.py` and `weights.py` make the networks and images, `timing.py` runs two
calls in turns. Each section is a file whose `run` returns rows, and a function that shows them as a table: `bounds.py`,
`batches.py`, `population.py`, `memory.py`, `scaling.py`, `peak.py`, `neighbours.py`, `losses.py` (against
`composed.py`), `certify.py` (with `cascade.py`). `figure.py` draws them, and `__main__.py` is the command.

`vnncomp`, a command of its own, asks questions of the shapes of VNN-COMP's.

Ratios are auto_LiRPA's time (or memory) divided by the native one: above 1, native is better.
"""
