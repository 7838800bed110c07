"""Several launches on one machine take turns: while one trains a block of steps, the others wait.

The noise of a shared machine is slow, and neighbouring turns see the same of it: duet benchmarking (Bulej et al. 2020,
arXiv 2001.05811), with the order of the turns drawn by chance (Abedi and Brecht 2017, doi 10.1145/3030207.3030229).
`python -m launch gate` is the referee that grants the turns (launch.gate.referee). It listens on a Unix socket, to
which each rank connects. Messages are JSON:

    rank     {"launch_id", "key", "rank", "processes", "pid"}    ready to train; waits for its first turn
    referee  {"turn": 7, "windows": 2, "partners": [launch ids], "pids": [theirs]}
    rank     {"done": seconds a step takes}    the turn is over
    rank     {"left": true}                    training is over; waits until that of the others is
    referee  {"end": "why"}, or {"end": ""} if all have left
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

from bench.variables import TURNS

PROTOCOL = 1
"""A commit with another number, or without this file, cannot take turns with this one."""
BEAT_S = 1.0


class TurnsEnded(Exception):
    """Another launch that takes turns with this one has ended before its time, or the referee has."""


class Turns:
    """One rank's place in the order. `number`: of the turn, from 0; the turns of one number are compared.

    `windows`: how many steps a turn has. `partners`: the launch ids of the others; `pids`: their process ids.
    """

    def __init__(self, address: str, beat: Callable[[], None] = lambda: None) -> None:
        """`beat` is called about once a second while this rank waits. Raises TurnsEnded if there is no referee."""
        self.beat = beat
        self.number, self.windows = -1, 1
        self.partners: list[str] = []
        self.pids: frozenset[int] = frozenset()
        try:
            self.connection = Client(address, family="AF_UNIX")
        except OSError as error:
            raise TurnsEnded("the referee of the turns has ended") from error

    def begin(self, launch_id: str, key: str, rank: int = 0, processes: int = 1) -> None:
        """Wait for the first turn. `key`: equal for launches of equal work."""
        self._exchange({"launch_id": launch_id, "key": key, "rank": rank, "processes": processes, "pid": os.getpid()})

    def hand_over(self, window_s: float | None) -> None:
        """Let the others train, and wait for the next turn. The device has to be idle.

        `window_s`: how long a step takes, from which the referee decides how many a turn has; None: not known yet.
        """
        with paused_children():
            self._exchange({"done": window_s})

    def leave(self) -> None:
        """Training is over: wait until that of the others is, so that this process's end does not disturb it."""
        self._exchange({"left": True})
        self.connection.close()

    def _exchange(self, message: dict[str, Any]) -> None:
        try:
            self.connection.send_bytes(json.dumps(message).encode())
            while not self.connection.poll(BEAT_S):
                self.beat()
            answer = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise TurnsEnded("the referee of the turns has ended") from error
        if answer.get("end"):
            raise TurnsEnded(answer["end"])
        if "turn" in answer:
            self.number, self.windows = answer["turn"], answer["windows"]
            self.partners, self.pids = answer["partners"], frozenset(answer["pids"])


@contextmanager
def paused_children() -> Iterator[None]:
    """Stop this process's children meanwhile: loader workers would prepare batches in the turns of the others."""
    children = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def alone() -> Iterator[None]:
    """After all have left: wait until no other launch of the match is in here. Without turns, go on at once."""
    if not (address := os.environ.get(TURNS)):
        yield
        return
    folder = os.open(Path(address).parent, os.O_RDONLY)  # which the sides share; a lock on it ends with its process
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def from_environment(beat: Callable[[], None] = lambda: None) -> Turns | None:
    """The place in the order that the referee gives this process; None if it takes no turns."""
    return Turns(os.environ[TURNS], beat) if os.environ.get(TURNS) else None
