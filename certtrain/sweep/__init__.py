"""Runs the jobs of a sweep: each in a fresh process, in a clean environment, in a directory of its own.

Hydra's sweeper says what the jobs are. `launcher` turns each into the command line that runs it alone (`jobs`), in the
environment that `environment` cleans. A `runner` decides when and where commands run: `basic`, `parallel` or `slurm`;
`process` runs one. `sweep` knows what became of the jobs: on disk (`record`), in the terminal (`board`), and whether to
stop (`stop`). `plugins` gives the launchers their places in Hydra. Nothing here imports torch.
"""
