"""What to do about what libraries and the system report: the next move, for the end of a cause."""

from __future__ import annotations

import os
import re

import psutil

INTERFACE = re.compile(r"unable to find address for|no socket interface found|no such device", re.IGNORECASE)
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
SHM = "loader workers share batches in /dev/shm: make room there (docker run --shm-size), or give --workers 0"
# What an error's text says -> what to do. The first that is found counts.
MOVES = (
    (re.compile(r"</?torch_\w+>.*No space left|out of shared memory|/dev/shm|killed by signal: Bus error"), SHM),
    (re.compile(r"No space left on device|Disk quota exceeded"), "make room on that disk"),
    (re.compile(r"Too many open files"), "raise the limit with ulimit -n, or give fewer --workers"),
    (re.compile(r"no kernel image is available"), "install a torch that is built for this GPU"),
    (re.compile(r"Address already in use", re.IGNORECASE), "another process has the port: end it, or give another"),
)
# How a process ends, other than by SIGKILL -> what that means.
SIGNALS = {
    "SIGSEGV": "a library crashed; see the log",
    "SIGABRT": "a library gave up, and said why in the log",
    "SIGBUS": "a full /dev/shm or disk does that: see df, and the log",
    "SIGILL": "a library is built for instructions that this CPU lacks; see the log",
    "SIGFPE": "a library crashed; see the log",
    "SIGXCPU": "the limit on CPU time is reached: see ulimit -t",
    "SIGXFSZ": "the limit on the size of files is reached: see ulimit -f",
}
ASKED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def with_move(text: str) -> str:
    """The cause with its next move, if there is one to say."""
    if INTERFACE.search(text) and (asked := interfaces_asked_for()):
        return f"{text}; {asked}"
    move = next((move for pattern, move in MOVES if pattern.search(text)), None)
    return f"{text}; {move}" if move else text


def interfaces_asked_for() -> str:
    """Which variable asks for a network interface that this machine has not, and which it has; "": none does."""
    here = list(psutil.net_if_addrs())
    asked = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    missing = [f"{name}={value}" for name, value in asked.items() if not has(value, here)]
    return f"{' and '.join(missing)} asks for it, and this machine has {', '.join(here)}" if missing else ""


def has(value: str, here: list[str]) -> bool:
    """Whether a machine with these interfaces has one that the value of such a variable takes.

    NCCL takes several, each of which may be the beginning of a name; =NAME is all of it, and ^ excludes what follows.
    """
    if value.startswith("^"):
        return True
    names = value.removeprefix("=").split(",")
    if value.startswith("="):
        return any(name in here for name in names)
    return any(each.startswith(name) for name in names for each in here)


def of_signal(name: str) -> str:
    """What to do about a process that this signal has ended."""
    if name in ASKED:
        return "if not by you, ask what else runs here"
    return SIGNALS.get(name, "if not by you, see dmesg")
