"""Measurements of this machine: the engine beside other libraries, in one run.

`python -m vitbench.bench --help` is the way in. Each contender lives in a process of its own
(`contest`), takes its turns interleaved with the others, and ends as a row of one JSON file, one
table and one figure (`report`).
"""
