"""The connection between machines: one state for each, in a `torch.distributed.TCPStore` that machine 0 hosts.

Machine RANK owns the key `machine/RANK`. Its value is a JSON object that nobody else writes: what machine 0 wants to
run, and how far another machine is with that. A machine reads what the others' states are now, so no message can be
missed, and none is left over: the store is in the memory of machine 0's launcher and ends with it.

The value is a heartbeat too, for it is written anew every second. Where it does not change for LOST_S, by the reader's
own clock, that machine is lost.

What the store does not do (torch 2.6 to 2.14), and what this module does about it:

- Its time-outs do not hold on a dead link. After its time-out `get` asks the server to cancel the wait, and then waits
  for the answer without limit. So one thread makes all calls, and nothing else ever waits for that thread.
- It does not tell a client that another is gone. A machine that ends in order says so in its state. One whose launcher
  is killed, or whose link is dead, is found by its heartbeat. The end of machine 0's launcher shows at once.
- Its server listens on all interfaces. Machine 0 binds a socket to its own address and hands it over.
- It has no log-in: who reaches the port can write any key, as on the port that DDP itself opens beside it. So states
  are data only, which is looked up among the trials of this machine's own command, and never unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bench.entry import imports_that_stay
from bench.errors import UsageError
from bench.variables import new_id

if TYPE_CHECKING:
    from torch.distributed import TCPStore

# How often states are read, which takes 0.1 ms, and the longest time between two writes of one.
EXCHANGE_S = 0.1
HEARTBEAT_S = 1.0
# A machine that swaps or loses some packets is silent for seconds. TCP itself would take a quarter of an hour.
LOST_S = 15.0
# For the TCP connection and the first answer of a store that has just been reached.
CONNECT_S = 10.0
# How long machine 0 keeps the store for the others to read its last state.
FAREWELL_S = 5.0
# For the last state to be written, unless the link is dead.
CLOSE_S = 2.0
LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


@dataclass
class Peer:
    """Another machine, as it was last seen."""

    name: str
    state: dict[str, Any] = field(default_factory=dict)
    text: bytes = b""
    changed_at: float = field(default_factory=time.monotonic)
    token: str | None = None
    """Once set, states of another process that claims the same rank are ignored."""


class StoreConnection:
    """Publishes this machine's state and follows that of the others, until it is closed."""

    def __init__(
        self, address: tuple[str, int], rank: int, peers: dict[int, str], listener: socket.socket | None = None
    ) -> None:
        """Connect to the store at (host, port) in the background. `peers`: rank -> name of each machine to follow.

        `listener`: on machine 0 the bound socket on which the store is to listen.
        """
        self.token = new_id()
        self.peers = {number: Peer(name) for number, name in peers.items()}
        self.failure: Exception | None = None
        self._address, self._rank, self._listener, self._stopping = address, rank, listener, False
        # Each change makes a new dict, since the thread may be reading the one before.
        self._state: dict[str, Any] = {}
        self._last: tuple[dict[str, Any], str, float] = {}, "", 0.0
        # In this thread, since a process that exits while another thread imports torch may crash.
        self._store_class = import_store()
        # A daemon, since a call that hangs on a dead link must not keep the launcher from its end.
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    # For the main thread

    def publish(self, **changes: Any) -> None:
        """Change this machine's state. The others see all changes of one call at once.

        The first call takes the key of this rank, from a former process of this rank too.
        """
        if not changes.items() <= self._state.items():
            self._state = {"token": self.token, **self._state, **changes}

    def state(self, rank: int) -> dict[str, Any]:
        """Another machine's state as last seen; {} before there is one."""
        return self.peers[rank].state

    def loss(self, rank: int) -> str | None:
        """A sentence that says why another machine counts as lost; None if it does not.

        Read the state first: that of a machine which leaves may hold news too. Raises UsageError if another process
        has taken this machine's rank.
        """
        peer = self.peers[rank]
        if self.failure is not None and (self._listener or not isinstance(self.failure, RuntimeError)):
            raise self.failure
        if self.failure is not None or peer.state.get("left"):  # torch raises RuntimeError if the store is gone
            return f"{peer.name} closed its connection"
        if time.monotonic() - peer.changed_at > LOST_S:
            return f"{peer.name} is lost: no heartbeat for {LOST_S:g} s"
        return None

    def close(self) -> None:
        """Tell the others that this machine leaves, and disconnect. On machine 0 this ends the store too."""
        if self._state:
            self.publish(left=True)
        deadline = time.monotonic() + (FAREWELL_S if self._listener else 0.0)
        while self._thread.is_alive() and time.monotonic() < deadline:
            if all(self.loss(rank) for rank, peer in self.peers.items() if peer.state):
                break
            time.sleep(EXCHANGE_S)
        self._stopping = True
        self._thread.join(CLOSE_S)

    # For the connection's thread

    def _run(self) -> None:
        try:
            store = self._store_class(
                *self._address,
                is_master=self._listener is not None,
                timeout=timedelta(seconds=CONNECT_S),
                wait_for_workers=False,
                # detach: the store closes the socket when it ends
                master_listen_fd=self._listener.detach() if self._listener else None,
            )
            last = False
            while not last:
                last = self._stopping  # before the write, so that it has all that was published before close()
                self._write(store)
                self._read(store)
                time.sleep(EXCHANGE_S)
        except Exception as error:  # for the main thread, in loss()
            self.failure = error

    def _write(self, store: TCPStore) -> None:
        """Write this machine's state if it changed or a heartbeat is due."""
        state, now = self._state, time.monotonic()
        last, written, written_at = self._last
        if not state or (state is last and now - written_at < HEARTBEAT_S):
            return
        text = json.dumps({**state, "heartbeat": now})
        if not written:
            store.set(_key(self._rank), text)
        # From then on over its own last value only, so that this process finds out when another takes its rank.
        elif store.compare_set(_key(self._rank), written, text) != text.encode():
            raise UsageError(f"--machine-rank {self._rank} is another process's now; give each machine its own")
        self._last = state, text, now

    def _read(self, store: TCPStore) -> None:
        """Read the others' states."""
        for rank, peer in self.peers.items():
            text = _get(store, rank)
            if text == peer.text:
                continue
            peer.text, state = text, _parsed(text)
            if state and peer.token in (None, state.get("token")):
                peer.changed_at, peer.state = time.monotonic(), state  # in this order: a new state is never stale


def import_store() -> type[TCPStore]:
    """torch's TCPStore, whose import takes seconds: a sweep on one machine goes without.

    By itself it prints a C++ stack wherever a connection breaks, which we say in a sentence. torch reads the level
    once, when it is imported; a trial's processes must not inherit it.
    """
    chosen = os.environ.get(LOG_LEVEL)
    os.environ[LOG_LEVEL] = chosen or "FATAL"
    with imports_that_stay():
        from torch.distributed import TCPStore

    if chosen is None:
        del os.environ[LOG_LEVEL]
    return TCPStore


def _key(rank: int) -> str:
    return f"machine/{rank}"


def _get(store: TCPStore, rank: int) -> bytes:
    """The value of a machine's key; empty if it has none. Unlike `get`, compare_set does not wait for one."""
    return bytes(store.compare_set(_key(rank), "", ""))


def _parsed(text: bytes) -> dict[str, Any]:
    """The state that the text holds; {} if a stranger has written something else."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(state := json.loads(text), dict):
            return state
    return {}
