"""UsageError, for requests that cannot be met, and how a command reports it."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator

# What nobody foresaw: not 1, which a command that judges ends with if something got worse. EX_SOFTWARE of sysexits.h.
UNFORESEEN = 70


class UsageError(Exception):
    """A request that cannot be met. Its text is one sentence for the user: the value and the next step."""


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a UsageError into its sentence on stderr and exit code 2, any other error into its traceback and 70."""
    try:
        yield
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(UNFORESEEN)
