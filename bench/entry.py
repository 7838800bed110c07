"""How a command begins: in UTF-8, on streams that do not end it, and with whatever ends it turned into an exit code.

An entry point imports this, and all else inside `guarded`: a package that is missing or broken is then an error there.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from bench.errors import one_sentence

# Nobody is left to read: the other end of the pipe, or the terminal, is gone.
GONE = (errno.EPIPE, errno.EIO)


@contextlib.contextmanager
def guarded(in_log: bool = False) -> Iterator[None]:
    """Around all that a command does, its imports included. It ends as bench.errors.one_sentence has it.

    `in_log`: this is a process that a launcher has forked, which has seen to its encoding, and stderr is its log.
    """
    if not in_log:
        use_utf8()
    open_streams()
    with one_sentence(in_log):
        yield


@contextlib.contextmanager
def imports_that_stay() -> Iterator[None]:
    """Around the imports of torch. They stay until the process ends, so no search for garbage looks through them.

    The searches would take a third of the CPU time of such imports; later ones would take time from the training.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def use_utf8() -> None:
    """Have this process and all that it starts take UTF-8 for text and names of files, whatever the locale.

    Python does so by itself from 3.15 on (PEP 686). An older one has to start anew where the locale has another
    encoding: in it, neither torch nor an HTML page takes the name of a folder that is not ASCII.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def open_streams() -> None:
    """Put streams in place of standard output and error that take any text, and lose what nobody reads.

    A character that the encoding (PYTHONIOENCODING) lacks is written as \\u2500. A descriptor that is closed leads to
    /dev/null: the next file to be opened would get its number, and the output of every process that we start.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) < 3:  # it gets the lowest number that is free
        os.set_inheritable(null, True)
    os.close(null)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(number: int, before: Any) -> io.TextIOWrapper:
    """A stream for this descriptor. `before`: the one in its place; None: its descriptor was closed."""
    if before is not None:
        before.flush()
    file = LossyFile(number, "wb", closefd=False)
    lines = number == 2 or file.isatty() or getattr(before, "write_through", False)
    encoding = getattr(before, "encoding", "utf-8")
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, "backslashreplace", line_buffering=lines)


class LossyFile(io.FileIO):
    """A descriptor where what nobody reads is lost; on standard error, whatever cannot be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.fileno() != 2 and error.errno not in GONE:
                raise
            return len(data)
