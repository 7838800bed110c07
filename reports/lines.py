"""Whole lines of a file that may hold anything, in little memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UsageError

LONGEST = 2**20
BLOCK = 2**20


class Lines(io.RawIOBase):
    """The lines of a file, to be read or looped over; where there is no such file, none.

    Left out, and counted in `skipped`, are those much longer than LONGEST bytes and those with a NUL; of a `plain` file
    also those with a quote, or with more or fewer commas than the first. Not counted is a last one that is not whole.
    `count` is the number of the others, once all are read. UsageError: the file cannot be read.
    """

    def __init__(self, path: Path, plain: bool = False) -> None:
        self.skipped = self.count = 0
        self._plain, self._commas = plain, -1
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
        """Good lines, as many at a time as a block of the file has."""
        if not path.is_file():  # a pipe would be waited for
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
        self.skipped += b"\r" in begun  # which no run writes: all lines of another system's file

    def _good(self, block: bytes) -> bytes:
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
