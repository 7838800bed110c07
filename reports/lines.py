"""The lines of a file that may hold anything, in little memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UsageError

LONGEST = 2**20  # bytes of a line; a longer one is no row
BLOCK = 2**20  # bytes that are read at a time


class Lines(io.RawIOBase):
    """The whole lines of a file, to be read or looped over; none if there is no such file.

    Lines with a NUL and lines much longer than LONGEST are left out and counted in `skipped`; in a `plain` file also
    those with a quote and those with more or fewer commas than the first. `count` is the number of the other lines,
    once all are read. A last line without its end is ignored: somebody is writing it; but where the others end in CRLF,
    a spreadsheet has written it, and it counts. The CR is cut off. Raises UsageError if the file cannot be read.
    """

    def __init__(self, path: Path, plain: bool = False) -> None:
        self.skipped = self.count = 0
        self._plain, self._commas = plain, -1
        self._crlf = False
        self._left = b""
        self._source = self._blocks(path)

    def __iter__(self) -> Iterator[bytes]:
        for block in self._source:
            yield from block[:-1].split(b"\n")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = next(self._source, b"")
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size

    def _blocks(self, path: Path) -> Iterator[bytes]:
        """The good lines of one block of the file after the other."""
        if not path.is_file():  # reading a pipe would wait for a writer
            return
        begun, endless = b"", False
        try:
            with open(path, "rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    if endless:
                        _, newline, block = block.partition(b"\n")
                        endless = not newline
                    whole, newline, begun = (begun + block).rpartition(b"\n")
                    if newline and (good := self._good(whole + newline)):
                        yield good
                    if len(begun) > LONGEST:
                        begun, endless = b"", True
                        self.skipped += 1
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}; give the --out folder of a run") from error
        if self._crlf and begun:
            if good := self._good(begun + b"\n"):
                yield good
            return
        self.skipped += b"\r" in begun  # lines that end in it alone, as no run writes them, are all one here

    def _good(self, block: bytes) -> bytes:
        if b"\r\n" in block:
            self._crlf, block = True, block.replace(b"\r\n", b"\n")
        lines = kept = block[:-1].split(b"\n")
        for mark in (b"\0", b'"') if self._plain else (b"\0",):
            if mark in block:
                kept = [line for line in kept if mark not in line]
        if self._plain and kept:
            if self._commas < 0:
                self._commas = kept[0].count(b",")
            kept = [line for line in kept if line.count(b",") == self._commas]
        self.skipped += len(lines) - len(kept)
        self.count += len(kept)
        return block if len(kept) == len(lines) else b"".join(line + b"\n" for line in kept)
