"""python -m reports: look at what runs left."""

import sys

import bench.errors  # noqa: F401  first: bench/__init__.py refuses a Python older than 3.10
from reports.cli import main

main(sys.argv[1:])
