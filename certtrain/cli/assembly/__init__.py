"""From a checked configuration to the objects of a run: one file for each kind of part.

`parts` makes and checks what a `_target_` names, `data`, `network`, `bounds` and `estimator` use it, `training` puts
them together. This is where a key becomes an argument. Imports `configuration`; knows of no directory and no Hydra
application.
"""
