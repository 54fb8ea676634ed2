"""Searches: a sweep whose jobs are chosen as it goes, by Optuna, from what earlier ones have reached.

`settings` is what was asked for, `space` what may be chosen; `plan` makes both of a command line. A trial is one
choice; it runs as one job, or as one per seed (`trials`), and what it reached is read from the records of its runs
(`figures`). `memory` is the study, which a search that was killed goes on from (`storage`), `choosers` are its samplers
and pruners. `search` brings all together with a launcher of `certtrain.sweep`, `watch` ends trials that are behind
while they run, `results` and `front` say what came out. Optuna is imported where it is used, for it is optional.
"""
