"""Requests that cannot be met, and how a command says so."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


class UsageError(Exception):
    """A request that cannot be met. Its text is one sentence for the user: the value and the next move."""


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the program with exit code 2 and the sentence of a UsageError."""
    try:
        yield
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
