"""Where machine 0 is, and which network interface leads to it. Imports no torch."""

from __future__ import annotations

import dataclasses
import os
import queue
import socket
import threading
import time
from typing import Any

import psutil

from bench.errors import UsageError
from launch.group.accelerate_command import NodeAddress
from launch.run_options import RunOptions

AGAIN_S = 1.0


def parse_endpoint(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, or of [HOST]:PORT for an IPv6 address. Raises UsageError if it is neither.

    The last port, 65535, leaves no room for that of the trial's processes behind it.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise UsageError(f"--rendezvous is {text!r}; give HOST:PORT of machine 0, with a port from 1 to 65534")
    return host, int(port)


def unresolved_node_address(options: RunOptions) -> NodeAddress:
    """Where this machine's processes meet the others', with the host's name as given: no name is looked up.

    They meet at machine 0 too, one port behind that of the launchers, which goes on being used beside them.
    """
    host, port = parse_endpoint(options.rendezvous)
    return NodeAddress(options.machine_rank, host, port + 1)


def node_address(options: RunOptions) -> NodeAddress:
    """As unresolved_node_address, with the host's address. Raises UsageError if it has none within --join-timeout."""
    node = unresolved_node_address(options)
    return dataclasses.replace(node, address=resolve(node.address, node.port - 1, options.join_timeout)[1][0])


def resolve(host: str, port: int, timeout_s: float = 0.0) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """(family, socket address) of machine 0. Raises UsageError if the name has no address within the time.

    A scheduler may make the name known only when machine 0 runs, as Kubernetes does for a pod.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return _looked_up(host, port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(f"--rendezvous {host}:{port} has no address ({error}); give machine 0's") from error
        time.sleep(AGAIN_S)


def _looked_up(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """(family, socket address). In a thread: a name server that does not answer holds up a signal for half a minute."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0])
        except Exception as error:
            answers.put(error)

    threading.Thread(target=look_up, name="look up", daemon=True).start()
    found = answers.get()
    if isinstance(found, Exception):
        raise found
    return found[0], found[4]


def interface_to(address: str) -> str | None:
    """The network interface of this machine that leads to the address; None if it cannot be told."""
    family, target = resolve(address, 1)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)  # of a datagram socket: the kernel chooses a route and sends nothing
        local = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == local for each in addresses):
            return name
    return None


def interface_variables(address: str) -> dict[str, str]:
    """Variables that make gloo and NCCL use the interface which leads to machine 0, unless the user chose one."""
    name = interface_to(address)
    # NCCL takes every interface whose name begins with the text, unless = comes first.
    ours = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} if name else {}
    return {variable: value for variable, value in ours.items() if not os.environ.get(variable)}
