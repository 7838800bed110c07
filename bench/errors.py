"""UsageError, for requests that cannot be met, what a command ends with, and any exception as one line.

Imports no package.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence

from bench.called import as_called

# What nobody foresaw: not 1, which a command that judges ends with if something got worse. EX_SOFTWARE of sysexits.h.
UNFORESEEN = 70
INTERRUPTED = 130
CODES = """exit codes: 0 well, 2 the request cannot be met, 70 an error that nobody
foresaw (its traceback is in the file that is named), 130 interrupted; 1 and
others as the command's --help says"""


TRACEBACK = "Traceback (most recent call last)"
SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# The last lines of a traceback in a text: the first of the exception, which is not indented, and those after it.
RAISED = re.compile(r"(?s).*\n[ \t]+[^\n]*\n(?P<last>[^\s].*)")
# What torch adds behind its message: its own stack in C++, and advice for whoever debugs it.
BEHIND = re.compile(
    r"\n?(Exception raised from |frame #0:|CUDA kernel errors might be|For debugging consider|Compile with `TORCH_USE)"
)


class UsageError(Exception):
    """A request that cannot be met. Its text is one sentence for the user: the value and the next step."""


class Ended(SystemExit):
    """A command ends with this exit code, and means it: a package that calls sys.exit(1) gives no verdict."""


@contextlib.contextmanager
def one_sentence(in_log: bool = False) -> Iterator[None]:
    """Turn whatever ends a command into an exit code, with one sentence on stderr: a UsageError into 2, Ctrl-C into
    130, any other error into 70, with its traceback in a file.

    `in_log`: stderr is a log, and takes the traceback, and no word of Ctrl-C.
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
        if not in_log:
            say("interrupted")
        raise Ended(INTERRUPTED) from None
    except SystemExit as error:
        if error.code in (None, 0, 2):  # as argparse ends
            raise
        _report(error, in_log)
    except Exception as error:
        if isinstance(error, OSError) and not in_log and is_of(error, sys.argv[1:]):
            say(f"error: cannot use {error.filename}: {error.strerror}; check the path and whose it is")
            raise Ended(2) from None
        _report(error, in_log)


def is_of(error: OSError, words: Sequence[str]) -> bool:
    """Whether it is a path given as one of the words, or one below it, that may not be entered or is too long.

    Before Python 3.14, where a folder of another user is in the way, even the question whether a file exists raises.
    """
    if error.errno not in (errno.EACCES, errno.ENAMETOOLONG) or not isinstance(error.filename, (str, os.PathLike)):
        return False
    try:
        path, *given = map(os.path.abspath, [error.filename, *filter(None, words)])
    except OSError:  # the current folder is gone
        return False
    return any(path == each or path.startswith(f"{each}{os.sep}") for each in given)


def say(text: str) -> None:
    """Print a line to stderr; it is lost if nobody reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(as_called(text), file=sys.stderr, flush=True)


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


def one_line(error: BaseException, limit: int = 300) -> str:
    """An exception as one line: its type, and what was the matter.

    Of one that was raised again with its traceback in its text, as from a DataLoader's worker, that is where it was
    raised and the traceback's last line. Of one that was raised because the machine ran out of something (SHORTAGES),
    that comes first.
    """
    text = one_message(str(error))
    found = f"{type(error).__name__}: {text}" if text else type(error).__name__
    below = next((each for each in chain(error) if isinstance(each, OSError) and each.errno in SHORTAGES), None)
    if below is not None and str(below.strerror) not in found:
        found = f"{type(below).__name__}: {one_message(str(below))}; then {found}"
    return shortened(found, limit)


def reason(error: BaseException, limit: int = 200) -> str:
    """What was the matter, for a sentence that says the rest: without the type, if there is a text."""
    return shortened(one_message(str(error)), limit) or type(error).__name__


def one_message(text: str) -> str:
    """The text of an exception as one line, without stacks."""
    head, inside, traceback_lines = text.partition(TRACEBACK)
    if inside and (last := RAISED.fullmatch(traceback_lines)):
        head = head.strip().removesuffix("Original").rstrip(" .:\n")
        text = f"{head}: {last['last']}" if head else last["last"]
    if behind := BEHIND.search(text):
        text = text[: behind.start()] or text
    return " ".join(text.split())


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and its end."""
    end = limit // 3
    return text if len(text) <= limit else f"{text[: limit - end - len(' ... ')]} ... {text[-end:]}"


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then the one that it was raised from or while handling, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
