"""python -m reports: look at what runs left."""

import sys

from bench.entry import guarded  # first: bench/__init__.py refuses a Python older than 3.10

with guarded():
    from reports.cli import main

    main(sys.argv[1:])
