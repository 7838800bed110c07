"""How a trial's process group is started: what is asked for, and one way, a fresh `accelerate launch`.

The other way, a fork of a process that has its imports, is launch.group.warm_starter.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.options import Options
from bench.trial import Trial
from bench.variables import LAUNCH_ID, STORE
from launch.group import processes
from launch.group.accelerate_command import NodeAddress, accelerate_command, inherited

# From SIGKILL until a process counts as one that nothing ends: a driver may have to give its memory back first.
UNKILLABLE_S = 60.0


@dataclass(frozen=True)
class StartRequest:
    """What is to be started: one trial's processes on this machine. `log`: where they write."""

    launch_id: str
    trial: Trial
    options: Options
    gpus: int
    variables: Mapping[str, str]
    log: Path
    scratch: Path
    node: NodeAddress = field(default_factory=NodeAddress)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """All variables of the group's processes."""
        return {**inherited(), **more, **self.variables, **self._meeting()}

    def local(self) -> bool:
        """Whether several processes meet on this machine alone."""
        return self.trial.processes > 1 == self.trial.machines

    def meeting_point(self) -> str:
        """The file over which the launcher gathers them."""
        return str(self.scratch / f"{self.launch_id}.rendezvous")

    def _meeting(self) -> dict[str, str]:
        """Processes of one machine meet over files and the loopback device, out of reach from outside."""
        if not self.local():
            return {}
        interfaces = {name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
        return {
            **interfaces,
            STORE: str(self.scratch / f"{self.launch_id}.store"),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }


class RunningGroup(Protocol):
    """A process group under way."""

    def poll(self) -> int | None:
        """The launcher's exit code once it has ended, negative for a signal."""

    def members(self) -> set[int]:
        """The group's living processes."""

    def end(self, grace_s: float) -> set[int]:
        """End what is left of it: asked first, killed `grace_s` seconds later. Returned: what would not go even so."""

    def trouble(self) -> str:
        """What is known of a launcher that could not even begin; "" of others."""


class Starter(Protocol):
    """A way to start groups. `name`: what a row says of it."""

    name: str

    def check(self) -> None:
        """UsageError: it can start nothing any more."""

    def start(self, request: StartRequest) -> RunningGroup: ...
    def wait(self, seconds: float) -> None:
        """Wait so long, or until something happened."""

    def close(self) -> None: ...


def head_line(request: StartRequest) -> str:
    """The first line of a log: how to start this by hand."""
    more, command = accelerate_command(request.trial, request.options, request.gpus, request.node)
    return " ".join(["$", *(f"{name}={value}" for name, value in more.items()), shlex.join(command)]) + "\n"


@dataclass
class ColdGroup:
    """An `accelerate launch` in a session of its own, which Ctrl-C does not reach; torch gives ranks others."""

    process: subprocess.Popen[bytes]
    launch_id: str

    def poll(self) -> int | None:
        return self.process.poll()

    def members(self) -> set[int]:
        return processes.having(LAUNCH_ID, self.launch_id)

    def end(self, grace_s: float) -> set[int]:
        left = processes.end(self.members, grace_s, UNKILLABLE_S)
        if not left:
            self.process.wait()
        return left

    def trouble(self) -> str:
        return ""


class ColdStarter:
    """Starts each group by a fresh `accelerate launch`."""

    name = "cold"

    def check(self) -> None:
        """There is always a way."""

    def start(self, request: StartRequest) -> ColdGroup:
        more, command = accelerate_command(request.trial, request.options, request.gpus, request.node)
        more["PET_LOG_DIR"] = str(request.scratch)  # torchrun's, which it leaves behind
        if request.local():
            at = command.index("-m", command.index("--config_file"))
            command[at:at] = ["--rdzv_backend", "c10d", "--rdzv_conf", "store_type=file"]
            more["PET_RDZV_ENDPOINT"] = request.meeting_point()
        with open(request.log, "a") as log:
            process = subprocess.Popen(
                command,
                env=request.environment(more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return ColdGroup(process, request.launch_id)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        """Nothing outlasts its trial."""
