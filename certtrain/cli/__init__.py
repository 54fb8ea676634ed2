"""The command: Hydra composes, `schema` types and checks, `preflight` refuses what cannot run, `job` runs it.

`resume` decides into which directory a run goes, by what `rundir` finds there and `lock` says of other processes.
This is the one place that knows all parts; nothing but `__main__` imports it.
"""
