"""Where a run is shown beside its directory, which is the record: W&B, TensorBoard, CSV.

`facts` says what a run is in few words, `identity` which W&B run belongs to a directory and what of it is there.
`wandb_run` opens that run and logs to it, `results` sends what is known at the end (tables, pictures, files), and
`sync` does all of that from the record alone. `files` are the views that are files. `dashboard` defines the project's
workspace and report. Packages that are not part of the core are imported where they are used; `packages` asks for them.
"""
