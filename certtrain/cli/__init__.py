"""The command: the one place that knows all parts. Nothing but `__main__` and `certtrain.runs` imports it.

A room imports those below it, and none above (`tests/test_directions.py`):

    commands       one file for each first word: certify, collect, report, ...
    trained        what has been trained already, as several commands are pointed at it
    job            one run or one sweep: checked, handed to Hydra, trained on its ranks, certified, recorded
    estimates      what a generation, a run or a sweep would take
    assembly       from a checked configuration to the objects of a run
    rundir         a directory that holds a run: what was run there, with what code, and whether a command goes on there
    help           what the command says of itself: the help page, the reference, words that complete a line
    configuration  from words on the command line to a configuration that is typed and checked
    process        what every process settles before it computes: threads, memory, imports, output

Packages import nothing themselves, so that `--help` is there at once; what loads torch is imported where it is needed.
"""
