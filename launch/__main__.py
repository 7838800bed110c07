"""python -m launch: run experiments."""

import sys
from pathlib import Path

# Before the current folder, which may be that of a project with a package `bench` or `models` of its own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.entry import guarded  # first: bench/__init__.py refuses a Python older than 3.10

if __name__ == "__main__":  # not in the worker processes of `plan`, which import this module
    with guarded():
        from launch.cli import main

        main(sys.argv[1:])
