"""One trial: what is trained, how it is measured, what is recorded."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  what follows would be a syntax error there
    sys.stderr.write("error: this is Python %d.%d; resbench needs 3.10 or newer\n" % sys.version_info[:2])
    sys.exit(2)
