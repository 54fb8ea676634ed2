"""The command: Hydra composes, `schema` types and checks, `preflight` refuses what cannot run, `job` runs it.

`parser` knows what may be typed. What Hydra, OmegaConf and pydantic say is put in one line by `explain` and
`complaints`, with `hints` at what was meant.

`resume` decides into which directory a run goes, by what `rundir` finds there and `lock` says of other processes.
This is the one place that knows all parts; nothing but `__main__` imports it.
"""
