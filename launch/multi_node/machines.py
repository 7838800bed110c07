"""One sweep on several machines, each of which runs the same command: machine 0 decides and keeps the record.

The others connect to it, show that they have the same code, versions and trials, and then start their part of each
trial when they are told to. What passes between them are JSON lines; nothing that comes in is run, only looked up among
the trials that this machine was asked for itself. Both sides say once a second that they are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import platform
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from bench.errors import UsageError
from bench.machine import environment
from bench.trial import Trial
from launch.group.accelerate_command import NodeAddress
from launch.run_options import RunOptions

BEAT_S = 1.0
LOST_S = 15.0
HELLO_S = 10.0
LONGEST = 2**20
FOLDERS = ("bench", "models", "launch")


class Lost(Exception):
    """The other machine is gone: its end closed the connection, or nothing was heard of it for LOST_S seconds."""


@dataclass
class Line:
    """A connection to another machine, and what is known of that."""

    socket: socket.socket
    name: str = "another machine"
    read: bytes = b""
    heard_at: float = field(default_factory=time.monotonic)
    sending: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def say(self, **message: Any) -> None:
        """Send a message; that the other side is gone shows when it is listened to."""
        with self.sending, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, seconds: float) -> list[dict[str, Any]]:
        """The messages that are there, waiting so long for one. Lost: the other side is."""
        if not self.closed and select.select([self.socket], [], [], seconds)[0]:
            try:
                got = self.socket.recv(65536)
            except OSError:
                got = b""
            self.closed = not got
            self.heard_at = time.monotonic()
            *lines, self.read = (self.read + got).split(b"\n")
            if len(self.read) > LONGEST:
                raise Lost(f"{self.name} sends what is no message")
            found = [message for line in lines if (message := parsed(line)) and "beat" not in message]
            if found:
                return found
        if self.closed:
            raise Lost(f"{self.name} closed its connection")
        if time.monotonic() - self.heard_at > LOST_S:
            raise Lost(f"{self.name} is lost: nothing was heard of it for {LOST_S:g} s")
        return []

    def gone(self) -> bool:
        """Whether the other side, which has nothing to say yet, has closed its end."""
        self.heard_at = time.monotonic()
        try:
            self.hear(0.0)
        except Lost:
            return True
        return False

    def interface(self) -> str | None:
        """The network interface that leads there."""
        here = self.socket.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            if any(address.address.partition("%")[0] == here for address in addresses):
                return name
        return None

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Say once a second that this machine is there, whatever else it is at."""
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(BEAT_S):
                self.say(beat=1)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


def parsed(line: bytes) -> dict[str, Any]:
    """A message; empty: it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(message := json.loads(line), dict):
            return message
    return {}


def facts(trials: Sequence[Trial], resume: bool = False) -> dict[str, Any]:
    """What has to be the same on all machines."""
    files = sorted(path for folder in FOLDERS for path in (environment.CHECKOUT / folder).rglob("*.py"))
    code = {
        str(path.relative_to(environment.CHECKOUT)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in files
    }
    names = ("torch", "torchvision", "accelerate", "numpy")
    versions = {"Python": platform.python_version(), **{name: environment.version(name) for name in names}}
    keys = [[trial.key(), trial.repeat, resume] for trial in trials]
    return {"code": code, "versions": versions, "trials": hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]}


def difference(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """A sentence that names what another machine has that machine 0 has not; None: they agree."""
    for package, version in ours["versions"].items():
        if (other := theirs["versions"].get(package)) != version:
            return f"{name} has {package} {other} where machine 0 has {version}; install the same on both"
    files = sorted(ours["code"].keys() | theirs["code"].keys())
    if unlike := [path for path in files if ours["code"].get(path) != theirs["code"].get(path)]:
        more = f" and {len(unlike) - 1} more files" if len(unlike) > 1 else ""
        return f"{name} has other code than machine 0, in {unlike[0]}{more}; check out the same commit on both"
    if ours["trials"] != theirs["trials"]:
        return f"{name} is asked for other trials than machine 0; give both the same command"
    return None


def endpoint(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT. UsageError: it is none."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise UsageError(f"--rendezvous is {text!r}; give HOST:PORT of machine 0, with a port from 1 to 65534")
    return host, int(port)


def node_by_name(options: RunOptions) -> NodeAddress:
    """Where this machine's processes meet the others': at machine 0, on the port behind that of the machines."""
    host, port = endpoint(options.rendezvous)
    return NodeAddress(options.machine_rank, host, port + 1)


def resolve(host: str, port: int, patience_s: float = 0.0) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """The address of machine 0; under a scheduler its name may be known only once it runs. UsageError: it has none."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return family, address
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(f"--rendezvous {host}:{port} has no address ({error}); give machine 0's") from error
        time.sleep(1.0)


def gather(rendezvous: str, machines: int, known: Mapping[str, Any], patience_s: float) -> dict[int, Line]:
    """As machine 0, wait for the others: machine number -> its line. UsageError: one is missing, or unlike this one."""
    host, port = endpoint(rendezvous)
    family, address = resolve(host, port, patience_s)
    alone = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback  # as Debian has a machine's own name
    found: dict[int, Line] = {}
    deadline = time.monotonic() + patience_s
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            raise UsageError(
                f"cannot listen on --rendezvous {rendezvous}: {error.strerror}; give a free port of this machine, "
                f"which is machine 0"
            ) from error
        listening.listen()
        while len(found) < machines - 1:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([listening], [], [], left)[0]:
                raise UsageError(
                    f"of {machines} machines only {len(found) + 1} came to {rendezvous} within {patience_s:g} s; "
                    + (f"it is {address[0]} here, where no other machine can reach it; " if alone else "")
                    + "start the others with the same command, or raise --join-timeout"
                )
            number, line = _admit(listening.accept()[0], machines, known, found)
            if line is not None:
                found[number] = line
    for line in found.values():
        line.heard_at = time.monotonic()  # while others were waited for it had nothing to say
        line.say(welcome=1)
    return found


def _admit(
    connection: socket.socket, machines: int, known: Mapping[str, Any], found: Mapping[int, Line]
) -> tuple[int, Line | None]:
    """(number, line) of a machine that has come; None: it was none. UsageError: it cannot take part."""
    line = Line(connection)
    try:
        deadline = time.monotonic() + HELLO_S
        while not (messages := line.hear(0.1)):
            if time.monotonic() > deadline:
                raise Lost("it says nothing")
        number, theirs = int(messages[0]["machine"]), messages[0]["facts"]
        line.name = f"machine {number} ({messages[0]['host']!s:.100})"
        why = difference(line.name, known, theirs)
    except (Lost, KeyError, TypeError, ValueError, AttributeError, OverflowError):  # somebody else's
        connection.close()
        return 0, None
    taken = number in found and not found[number].gone()  # one that was started again has closed the former line
    if taken or not 0 < number < machines:
        why = f"--machine-rank {number} of {line.name} is taken, or none of 0 to {machines - 1}"
    if why:
        for each in (line, *found.values()):
            each.say(refused=why)
        raise UsageError(why)
    return number, line


def join(rendezvous: str, machine: int, known: Mapping[str, Any], patience_s: float) -> Line:
    """As another machine, come to machine 0. UsageError: it cannot be reached, or does not take this one."""
    host, port = endpoint(rendezvous)
    family, address = resolve(host, port, patience_s)
    deadline = time.monotonic() + patience_s
    while True:
        connection = socket.socket(family)
        connection.settimeout(max(0.1, min(10.0, deadline - time.monotonic())))
        try:
            connection.connect(address)
            break
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise UsageError(
                    f"machine 0 cannot be reached at {rendezvous} ({error.strerror or error}); start it with the same "
                    f"command, or raise --join-timeout"
                ) from error
            time.sleep(0.2)
    connection.settimeout(None)
    line = Line(connection, f"machine 0 ({host})")
    line.say(machine=machine, host=socket.gethostname(), facts=known)
    while time.monotonic() < deadline + HELLO_S:
        line.heard_at = time.monotonic()  # until all are there it has nothing to say
        try:
            for message in line.hear(0.2):
                if "refused" in message:
                    raise UsageError(str(message["refused"]))
                if "welcome" in message:
                    return line
        except Lost as error:
            raise UsageError(f"{error}; see what machine 0 says") from error
    raise UsageError(f"machine 0 at {rendezvous} does not answer; is it of this sweep?")
