"""python -m reports: look at what runs left."""

import sys

import bench.errors  # noqa: F401  before all else, since it checks the version of Python
from reports.cli import main

main(sys.argv[1:])
