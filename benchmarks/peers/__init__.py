"""One file and one requirements file a peer: how it is installed, and how it runs a case.

A plug has `make(case) -> (steps, run)`: the environment steps of one run, and a function that does
one. `case` is a dictionary that every side of a row is given alike (`benchmarks._rows`). `run` may
return the seconds that count; else all of them do.
"""
