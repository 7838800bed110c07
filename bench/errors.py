"""UsageError, for requests that cannot be met, how a command reports it, and any exception as one line."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import traceback
from collections.abc import Iterator

# What nobody foresaw: not 1, which a command that judges ends with if something got worse. EX_SOFTWARE of sysexits.h.
UNFORESEEN = 70


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
