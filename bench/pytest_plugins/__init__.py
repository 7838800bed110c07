"""How do benchmarks in a project of your own get what this suite has? Plugins for pytest-benchmark.

`step` times a training step and counts its operations. `baseline` makes a run fail if it cannot be compared with an
earlier one. `side` and `in_turns` are for `python -m launch gate --pytest`, which has two commits take turns.
"""
