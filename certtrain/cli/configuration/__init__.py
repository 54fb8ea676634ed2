"""From words on the command line to a configuration that is typed and checked.

`parser` knows what may be typed, `compose` and `recompose` have Hydra put it together, with `own_targets` and `facts`;
`schema` types it. What Hydra, OmegaConf and pydantic say of mistakes is put in one line by `explain` and `complaints`.

Belongs here: what says what a configuration is and means; nothing is built of it, and no run is known. Without torch.
"""
