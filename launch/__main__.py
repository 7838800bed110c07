"""python -m launch: run experiments."""

import sys

import bench.errors  # noqa: F401  first: bench/__init__.py refuses a Python older than 3.10
from launch.cli import main

if __name__ == "__main__":  # not in the worker processes of `plan`, which import this module
    main(sys.argv[1:])
