"""Whole lines of a file that may hold anything, in little memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST = 2**20
BLOCK = 2**20


class Lines(io.RawIOBase):
    """The lines of a file, to be read or looped over; where there is no such file, none.

    Left out, and counted in `skipped`, are those much longer than LONGEST bytes and those with a NUL or `without`; not
    counted is a last one that is not whole. `count` is the number of the others, once all are read.
    """

    def __init__(self, path: Path, without: bytes = b"\0") -> None:
        self.skipped = self.count = 0
        self._left = b""
        self._source = self._blocks(path, {b"\0", without})

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

    def _blocks(self, path: Path, bad: set[bytes]) -> Iterator[bytes]:
        """Good lines, as many at a time as a block of the file has."""
        if not path.is_file():
            return
        begun, endless = b"", False
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                if endless:
                    _, newline, block = block.partition(b"\n")
                    endless = not newline
                whole, newline, begun = (begun + block).rpartition(b"\n")
                if newline and (good := self._good(whole + newline, bad)):
                    yield good
                if len(begun) > LONGEST:
                    begun, endless = b"", True
                    self.skipped += 1

    def _good(self, block: bytes, bad: set[bytes]) -> bytes:
        if any(each in block for each in bad):
            lines = block[:-1].split(b"\n")
            kept = [line + b"\n" for line in lines if not any(each in line for each in bad)]
            self.skipped += len(lines) - len(kept)
            block = b"".join(kept)
        self.count += block.count(b"\n")
        return block
