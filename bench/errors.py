"""UsageError, for requests that cannot be met, and what a command ends with, whatever ends it. Imports no package."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

# What nobody foresaw: not 1, which a command that judges ends with if something got worse. EX_SOFTWARE of sysexits.h.
UNFORESEEN = 70
INTERRUPTED = 130
CODES = """exit codes: 0 well, 2 the request cannot be met, 70 an error that nobody foresaw (its traceback is in the
file that is named), 130 interrupted; 1 and others as the command's --help says"""


class UsageError(Exception):
    """A request that cannot be met. Its text is one sentence for the user: the value and the next step."""


class Ended(SystemExit):
    """A command ends with this exit code, and means it: a package that calls sys.exit(1) gives no verdict."""


@contextlib.contextmanager
def one_sentence(in_log: bool = False) -> Iterator[None]:
    """Turn whatever ends a command into an exit code, with one sentence on stderr: a UsageError into 2, Ctrl-C into 130
    without a word, any other error into 70, with its traceback in a file.

    `in_log`: stderr is a log, and takes the traceback.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk is noticed here, not at exit, where Python would take it for 120
    except Ended:
        raise
    except UsageError as error:
        say(f"error: {error}")
        raise Ended(2) from None
    except KeyboardInterrupt:
        raise Ended(INTERRUPTED) from None
    except SystemExit as error:
        if error.code in (None, 0, 2):  # as argparse ends
            raise
        _report(error, in_log)
    except Exception as error:
        _report(error, in_log)


def say(text: str) -> None:
    """Print a line to stderr; it is lost if nobody reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _report(error: BaseException, in_log: bool) -> None:
    """Say what nobody foresaw, and end."""
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    text = "".join(traceback.format_exception(error))
    path = None if in_log else _written(text)
    if path is None:
        say(text.rstrip())
        say(f"error: nobody foresaw this: {what}; its traceback stands above")
    else:
        say(f"error: nobody foresaw this: {what}; its traceback is in {path}")
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # what it could not take is given up, or Python would try once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise Ended(UNFORESEEN) from None


def _written(text: str) -> str | None:
    """The new temporary file with this text below the command; None: it cannot be written."""
    try:
        import tempfile

        descriptor, path = tempfile.mkstemp(prefix="resbench-", suffix=".traceback.txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"$ {' '.join(sys.orig_argv)}\n{text}")
        return path
    except Exception:
        return None
