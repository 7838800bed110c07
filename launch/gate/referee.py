"""The referee grants turns to the launches of several sides, such as two commits, and writes nothing.

A round gives each side one turn, in an order drawn by chance; the turns of one round have one number and are compared.
A side may have several ranks: its turn begins on all of them at once and ends when all have said so. A match is one
launch of each side. It begins when all ranks of all sides are ready, and is over when all have left.
bench.instruments.turns has the messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.errors import UsageError

# A turn lasts about so long: far shorter than the noise of a shared machine, far longer than a hand-over.
TURN_S = 0.02
# A launch whose ranks all wait is shown to be alive this often, so that it is not ended as one that hangs.
BEAT_S = 1.0
OTHER_SETTINGS = "the sides have other settings"


@dataclass
class Place:
    """One side's ranks that are connected, and where its match stands."""

    name: str
    address: Path
    listener: socket.socket
    connected: list[Connection] = field(default_factory=list)
    waiting: dict[int, Connection] = field(default_factory=dict)
    """File descriptor -> connection, of the ranks that wait for an answer."""
    hello: dict[str, Any] = field(default_factory=dict)
    """What the ranks said of their launch; empty: none is ready."""
    pids: list[int] = field(default_factory=list)
    left: bool = False
    window_s: float = 0.0
    beaten_s: float = 0.0
    """When its ranks were last heard of, or shown to be alive."""

    def all_wait(self) -> bool:
        """Whether all its ranks wait for an answer."""
        return bool(self.hello) and len(self.waiting) == self.hello["processes"]

    def answer(self, message: dict[str, Any]) -> None:
        """Answer all ranks that wait."""
        self.tell(message)
        self.waiting.clear()

    def tell(self, message: dict[str, Any]) -> None:
        """Send this to all ranks that wait."""
        for connection in self.waiting.values():
            with contextlib.suppress(OSError):  # a rank that has ended meanwhile is noticed where it is read
                connection.send_bytes(json.dumps(message).encode())

    def forget(self) -> None:
        """Be ready for the next launch."""
        self.connected, self.waiting, self.hello, self.pids = [], {}, {}, []
        self.left, self.window_s = False, 0.0


class Referee:
    """Serves the sides. `broken`: why no further turn is granted; "": it goes on."""

    def __init__(self, folder: Path, names: Sequence[str], seed: int | None, turn_s: float) -> None:
        self.turn_s = turn_s
        self.sides = [Place(name, folder / name, listening(folder / name)) for name in names]
        self.coin = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        for side in self.sides:
            self.selector.register(side.listener, selectors.EVENT_READ, (side, None))
        self.round: list[Place] = []
        self.turn, self.windows = -1, 1
        self.broken = ""
        self.matches = 0

    def serve(self, seconds: float) -> None:
        """Answer what comes within this time."""
        for key, _ in self.selector.select(seconds):
            side, connection = key.data
            if connection is None:
                new = Connection(side.listener.accept()[0].detach())
                side.connected.append(new)
                self.selector.register(new, selectors.EVENT_READ, (side, new))
            elif connection in side.connected:  # else it was closed when the match ended, a moment ago
                self._read(side, connection)
        for side in self.sides:
            if side.all_wait() and time.monotonic() - side.beaten_s > BEAT_S:
                side.tell({"wait": True})
                side.beaten_s = time.monotonic()

    def end(self, why: str, but: Place | None = None) -> None:
        """Grant no further turn, and end the launches that wait for one, but for those of one side."""
        self.broken = self.broken or why
        for side in self.sides:
            if side is not but:
                side.answer({"end": self.broken})

    def close(self) -> None:
        """Close all sockets; whoever still waits for a turn sees that."""
        for side in self.sides:
            self._hang_up(side)
            side.listener.close()
        self.selector.close()

    def _hang_up(self, side: Place) -> None:
        for connection in side.connected:
            self.selector.unregister(connection)
            connection.close()
        side.connected = []

    def _read(self, side: Place, connection: Connection) -> None:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            self.selector.unregister(connection)
            side.connected.remove(connection)
            side.waiting.pop(connection.fileno(), None)
            connection.close()
            if side.hello:
                # Its own ranks are not answered: they or their launcher find out why it ended.
                self.end(f"the launch of {side.name} ended before its time", but=side)
            return
        if "launch_id" in message:
            side.hello = side.hello or message
            if message["launch_id"] != side.hello["launch_id"]:
                self.end(f"{side.name} began a launch before its last one had left")
            side.pids.append(message["pid"])
        side.left = side.left or "left" in message
        side.window_s = message.get("done") or side.window_s
        side.waiting[connection.fileno()] = connection
        side.beaten_s = time.monotonic()
        if self.broken:
            side.answer({"end": self.broken})
        elif side.all_wait():
            self._next()

    def _next(self) -> None:
        """All ranks of a side wait: grant the next turn, unless another side is still at work or not yet there."""
        if not all(side.all_wait() for side in self.sides):
            return
        if len({side.hello["key"] for side in self.sides}) > 1:
            self.end(OTHER_SETTINGS)
            return
        if all(side.left for side in self.sides):
            self._over()
            return
        self.round = [side for side in self.round if not side.left]
        if not self.round:
            self.turn += 1
            slowest_s = max(side.window_s for side in self.sides)
            self.windows = max(1, round(self.turn_s / slowest_s)) if slowest_s else 1
            self.round = [side for side in self.sides if not side.left]
            self.coin.shuffle(self.round)
        self._grant(self.round.pop())

    def _grant(self, side: Place) -> None:
        others = [each for each in self.sides if each is not side]
        turn = {"turn": self.turn, "windows": self.windows}
        partners = {"partners": [each.hello["launch_id"] for each in others]}
        side.answer({**turn, **partners, "pids": [pid for each in others for pid in each.pids]})

    def _over(self) -> None:
        for side in self.sides:
            side.answer({"end": ""})
            self._hang_up(side)  # what a process of this launch still does is not of the next
            side.forget()
        self.round, self.turn = [], -1
        self.matches += 1


def listening(path: Path) -> socket.socket:
    """A Unix socket that listens there: no other machine can reach it."""
    found = socket.socket(socket.AF_UNIX)
    try:
        found.bind(str(path))
    except OSError as error:  # its path may have a hundred bytes or so
        raise UsageError(f"cannot make the socket {path}: {error}; set TMPDIR to a folder of a shorter name") from error
    found.listen()
    return found


@contextlib.contextmanager
def referee(names: Sequence[str], seed: int | None = None, turn_s: float = TURN_S) -> Iterator[Referee]:
    """A referee with sockets in a folder that only this user can enter. `seed`: of the order; None: by chance.

    `turn_s`: about how long a turn of the slowest side is to last, if a step is shorter.
    """
    with tempfile.TemporaryDirectory(prefix="resbench-turns-") as folder:
        os.chmod(folder, 0o700)
        found = Referee(Path(folder), names, seed, turn_s)
        try:
            yield found
        finally:
            found.close()
