"""The command: Hydra composes, `schema` types and checks, `preflight` refuses what cannot run, `job` runs it.

This is the one place that knows all parts; nothing but `__main__` imports it.
"""
