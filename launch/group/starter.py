"""What starts a trial's process group: the request, and what a starter and the group that it returns can do.

There are two starters: launch.group.cold_starter runs a fresh `accelerate launch`; launch.group.warm_starter forks a
process that has done the imports.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.options import Options
from bench.trial import Trial
from bench.variables import STORE
from launch.group.accelerate_command import NodeAddress, Work, accelerate_command, inherited

# A process that SIGKILL has not ended after this time counts as unkillable: a driver may first have to free memory.
UNKILLABLE_S = 60.0


# Where NCCL's rank 0 would listen in place of the interface: an address, or the network of NCCL's out-of-band plugin.
ELSEWHERE = ("NCCL_COMM_ID", "NCCL_OOB_NET_ENABLE", "NCCL_OOB_NET_IFNAME")


@dataclass(frozen=True)
class StartRequest:
    """One trial's processes on this machine. `log`: where they print to. `work`: what they run in its place."""

    launch_id: str
    trial: Trial
    options: Options
    gpus: int
    variables: Mapping[str, str]
    log: Path
    scratch: Path
    node: NodeAddress = field(default_factory=NodeAddress)
    work: Work | None = None

    def command(self) -> tuple[dict[str, str], list[str]]:
        """(environment variables to add, the command) that start the group afresh."""
        return accelerate_command(self.trial, self.options, self.gpus, self.node, self.work)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """All environment variables of the group's processes."""
        found = {**inherited(), **more, **self.variables, **self._rendezvous_variables()}
        return {name: value for name, value in found.items() if not (self.is_local_group() and name in ELSEWHERE)}

    def is_local_group(self) -> bool:
        """Whether there are several processes, all on this machine."""
        return self.trial.processes > 1 == self.trial.machines

    def rendezvous_file(self) -> str:
        """The file over which a launcher forms a local group."""
        return str(self.scratch / f"{self.launch_id}.rendezvous")

    def _rendezvous_variables(self) -> dict[str, str]:
        """A local group meets over files and the loopback device: nothing listens where another machine could reach it.

        Torch's own store would listen on a TCP port of every interface. An interface that is left over in the
        environment from a run on several machines is not taken; NCCL takes all whose names begin so, unless = is first.
        """
        if not self.is_local_group():
            return {}
        return {
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "=lo",
            "TP_SOCKET_IFNAME": "lo",
            STORE: str(self.scratch / f"{self.launch_id}.store"),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }


class RunningGroup(Protocol):
    """A process group that was started."""

    def poll(self) -> int | None:
        """The launcher's exit code, negative for a signal; None while it runs."""

    def members(self) -> set[int]:
        """The process ids of the group that are alive."""

    def end(self, grace_s: float) -> set[int]:
        """End all that is left: SIGTERM, and SIGKILL `grace_s` seconds later. Returns the processes that survive it."""

    def start_failure(self) -> str:
        """Why the launcher itself could not start, as a sentence; "" if it did."""


class Starter(Protocol):
    """Starts groups. `name`: the column `started_by`."""

    name: str

    def check(self) -> None:
        """Raises UsageError if it can start no more groups."""

    def start(self, request: StartRequest) -> RunningGroup: ...
    def wait(self, seconds: float) -> None:
        """Wait so long, or until a group has ended."""

    def close(self) -> None: ...


def run_to_end(starter: Starter, request: StartRequest, grace_s: float) -> int:
    """Start a group that is no trial, wait for its end, and leave no process of it. Its launcher's exit code."""
    group = starter.start(request)
    try:
        while (code := group.poll()) is None:
            starter.wait(0.2)
        return code
    finally:
        group.end(grace_s)


def head_line(request: StartRequest) -> str:
    """The first line of a log: the command that starts the same by hand."""
    more, command = request.command()
    return " ".join(["$", *(f"{name}={value}" for name, value in more.items()), shlex.join(command)]) + "\n"
