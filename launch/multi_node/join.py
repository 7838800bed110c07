"""How the machines come together: machine 0 opens the store, the others join, and machine 0 checks that all agree."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Mapping
from typing import Any

from bench.errors import UsageError
from launch.multi_node.address import parse_endpoint, resolve
from launch.multi_node.compatibility import difference
from launch.multi_node.store import EXCHANGE_S, StoreConnection

# Between two attempts to reach machine 0, and for one where its network drops what is sent to it.
AGAIN_S = 0.2
ATTEMPT_S = 10.0


def wait_for_machines(
    rendezvous: str, machines: int, fingerprint: Mapping[str, Any], timeout_s: float
) -> StoreConnection:
    """As machine 0, open the store and wait until all machines have joined.

    Raises UsageError if one does not come in time, or runs something else.
    """
    host, port = parse_endpoint(rendezvous)
    family, address = resolve(host, port, timeout_s)
    listener = _bind(family, address, rendezvous)
    names = {rank: f"machine {rank}" for rank in range(1, machines)}
    connection = StoreConnection(address[:2], 0, names, listener)
    connection.publish(host=socket.gethostname())
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(connection.close)
        deadline = time.monotonic() + timeout_s
        while len(joined := _joined(connection, fingerprint)) < machines - 1:
            if time.monotonic() > deadline:
                # Debian gives a machine's own name an address of the loopback device.
                local = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
                raise UsageError(
                    f"of {machines} machines only {len(joined) + 1} came to {rendezvous} within {timeout_s:g} s; "
                    + (f"it is {address[0]} here, where no other machine can reach it; " if local else "")
                    + "start the others with the same command, or raise --join-timeout"
                )
            time.sleep(EXCHANGE_S)
        for rank, token in joined.items():
            connection.peers[rank].token = token  # from now on another process of this rank is none of the sweep's
        connection.publish(members={str(rank): token for rank, token in joined.items()})
        on_failure.pop_all()
    return connection


def _bind(family: socket.AddressFamily, address: tuple[Any, ...], rendezvous: str) -> socket.socket:
    """A socket bound to this address alone, where the store by itself would listen on all interfaces."""
    listener = socket.socket(family)
    # Or the port of a sweep that has just ended could not be used for a minute (TIME_WAIT).
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on --rendezvous {rendezvous}: {error.strerror}; give a free port of this machine, "
            f"which is machine 0"
        ) from error
    return listener


def _joined(connection: StoreConnection, fingerprint: Mapping[str, Any]) -> dict[int, str]:
    """Rank -> token of the machines that are here now. Raises UsageError if one of them runs something else."""
    joined = {}
    for rank, peer in connection.peers.items():
        if not peer.state or connection.loss(rank):
            continue
        try:
            peer.name = f"machine {rank} ({peer.state['host']!s:.100})"
            why = difference(peer.name, fingerprint, peer.state["fingerprint"])
            joined[rank] = str(peer.state["token"])
        except (KeyError, TypeError, AttributeError):  # a stranger wrote it
            continue
        if why:
            connection.publish(refusal=why)  # to all: the sweep cannot begin without this one
            raise UsageError(why)
    return joined


def join_machine_0(rendezvous: str, rank: int, fingerprint: Mapping[str, Any], timeout_s: float) -> StoreConnection:
    """As another machine, join and wait until all have. Raises UsageError if machine 0 is not there or refuses.

    It is machine 0 that gives up if others do not come.
    """
    host, port = parse_endpoint(rendezvous)
    _, address = resolve(host, port, timeout_s)
    _wait_until_reachable(address[:2], rendezvous, timeout_s)
    connection = StoreConnection(address[:2], rank, {0: f"machine 0 ({host})"})
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(connection.close)
        while not (members := (state := connection.state(0)).get("members")):
            if refusal := state.get("refusal"):
                raise UsageError(str(refusal))
            if why := connection.loss(0):
                stranger = f"what listens at {rendezvous} is not machine 0; give HOST:PORT of machine 0"
                raise UsageError(f"{why}; see what machine 0 says" if state else stranger)
            if state:  # and no members in it: taking the key of this rank pushes no member out
                connection.publish(host=socket.gethostname(), fingerprint=fingerprint)
            time.sleep(EXCHANGE_S)
        if members.get(str(rank)) != connection.token:
            raise UsageError(
                f"machine 0 at {rendezvous} has begun without this process; end the sweep, then start it on all "
                f"machines, with the same --machines and each with its own --machine-rank"
            )
        on_failure.pop_all()
    return connection


def _wait_until_reachable(address: tuple[str, int], rendezvous: str, timeout_s: float) -> None:
    """Wait until somebody listens at machine 0's address. Raises UsageError if nobody does in time.

    The store could wait too, but it takes up to twice its time-out and does not say what the trouble is.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_connection(address, max(AGAIN_S, min(ATTEMPT_S, deadline - time.monotonic()))).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"machine 0 cannot be reached at {rendezvous} ({error.strerror or error}); start it with the same "
                    f"command, or raise --join-timeout"
                ) from error
        time.sleep(AGAIN_S)
