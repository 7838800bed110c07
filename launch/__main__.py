"""python -m launch: run experiments."""

import sys

import bench.errors  # noqa: F401  before all else, since it checks the version of Python
from launch.cli import main

if __name__ == "__main__":  # not where plan's helpers import it
    main(sys.argv[1:])
