"""One run or one sweep from a typed command to its record.

In the order in which they act: `launch` takes the command, `preflight` refuses what cannot run, Hydra makes the
directory, `entry` is called in it and starts ranks where there are several (`supervisor`, `rank`, `cluster`), `job`
trains, `conclusion` certifies and writes what came of it. `logs` and `views` are who sees the numbers.

Belongs here: what happens while a run lives. Imports everything below it, which is all but `trained` and `commands`.
"""
