"""A directory that holds a run, as other processes find it, and what a command may do with it.

`directory` knows what is there, `code` what of the user's own it was made of. `recorded` makes a command of one that
names a run, `resume` decides where the run of a command goes, `extension` whether it may go on to more epochs.

Belongs here: what reads and writes such a directory without building or running what is recorded in it. Imports
`configuration`.
"""
