"""Two ways to start a trial's process group: from a process that has its imports, or by a fresh `accelerate launch`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.cli import Options
from bench.trial import Trial
from bench.variables import LAUNCH_ID, STORE
from launch import processes
from launch.command import Place, accelerate_command, inherited, option_words, words

RENDEZVOUS = "resbench"  # see launch.rendezvous, which imports torch
# For word of a launcher that has ended; the warm process tells it at once, unless it hangs.
ANSWER_S = 5.0
# From SIGKILL until a process counts as one that nothing ends: a driver may have to give its memory back first.
UNKILLABLE_S = 60.0


@dataclass(frozen=True)
class Order:
    """What is to be started: one trial's processes on this machine. `log`: where they write."""

    launch_id: str
    trial: Trial
    options: Options
    gpus: int
    variables: Mapping[str, str]
    log: Path
    scratch: Path
    place: Place = field(default_factory=Place)

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


class Started(Protocol):
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

    def start(self, order: Order) -> Started: ...
    def wait(self, seconds: float) -> None:
        """Wait so long, or until something happened."""

    def close(self) -> None: ...


def head_line(order: Order) -> str:
    """The first line of a log: how to start this by hand."""
    more, command = accelerate_command(order.trial, order.options, order.gpus, order.place)
    return " ".join(["$", *(f"{name}={value}" for name, value in more.items()), shlex.join(command)]) + "\n"


@dataclass
class ColdStarted:
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


class Cold:
    """Starts each group by a fresh `accelerate launch`."""

    name = "cold"

    def check(self) -> None:
        """There is always a way."""

    def start(self, order: Order) -> ColdStarted:
        more, command = accelerate_command(order.trial, order.options, order.gpus, order.place)
        more["PET_LOG_DIR"] = str(order.scratch)  # torchrun's, which it leaves behind
        if order.local():
            at = command.index("-m", command.index("--config_file"))
            command[at:at] = ["--rdzv_backend", "c10d", "--rdzv_conf", "store_type=file"]
            more["PET_RDZV_ENDPOINT"] = order.meeting_point()
        with open(order.log, "a") as log:
            process = subprocess.Popen(
                command,
                env=order.environment(more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return ColdStarted(process, order.launch_id)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        """Nothing outlasts its trial."""


@dataclass
class WarmStarted:
    """A launcher forked by the warm process, its ranks in its session. `pid`: not known before the answer."""

    warm: Warm
    launch_id: str
    pid: int | None = None
    code: int | None = None
    orphaned: bool = False

    def poll(self) -> int | None:
        self.warm.listen()
        if self.code is None and self.pid is not None and not processes.runs(self.pid):
            self.warm.expect(self)
        if self.code is None and self.warm.gone:
            self.code, self.orphaned = 1, True
        return self.code

    def members(self) -> set[int]:
        self.warm.listen()
        if self.pid is not None:
            return processes.in_session(self.pid)
        if not self.warm.gone:
            return set()
        # It may have been forked before the answer was lost.
        return processes.having(processes.RUNNER_ID, self.warm.runner_id)

    def end(self, grace_s: float) -> set[int]:
        self.warm.listen()
        if self.pid is None and self.code is None:  # asked for and not yet forked: it must not be later either
            self.warm.give_up()
        left = processes.end(self.members, grace_s, UNKILLABLE_S)
        self.warm.expect(self)
        return left

    def trouble(self) -> str:
        if not self.orphaned:
            return ""
        return f"the process that forks trials is gone, killed or for what {self.warm.log} says; or try --cold"


class Warm:
    """Starts groups by forking them off a process that has their imports (launch.warm), which is started when first
    needed and again should it be gone. `log`: what it has to say."""

    name = "warm"

    def __init__(self, runner_id: str, log: Path) -> None:
        self.runner_id, self.log = runner_id, log
        self.process: subprocess.Popen[bytes] | None = None
        self.gone = False
        self.under_way: dict[str, WarmStarted] = {}
        self.read = b""

    def check(self) -> None:
        """What is gone is started again."""

    def boot(self) -> None:
        """Start the process, which then imports while others work; nothing if it is there."""
        if self.process is not None and not self.gone:
            return
        self.close()
        for started in self.under_way.values():  # of the one that is gone
            started.code, started.orphaned = 1, True
        self.under_way.clear()
        self.control, theirs = socket.socketpair()
        variables = {**inherited(), processes.RUNNER_ID: self.runner_id}
        # OpenBLAS starts threads when it is imported; torch's own come later and are not its.
        variables.setdefault("OPENBLAS_NUM_THREADS", "1")
        with open(self.log, "a") as log, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launch.warm", str(theirs.fileno())],
                env=variables,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.gone, self.read = False, b""

    def start(self, order: Order) -> WarmStarted:
        self.boot()
        more, _ = accelerate_command(order.trial, order.options, order.gpus, order.place)
        started = self.under_way[order.launch_id] = WarmStarted(self, order.launch_id)
        request = {
            "launch_id": order.launch_id,
            "experiment": order.trial.experiment,
            "words": [*words(order.trial), *option_words(order.options)],
            "processes": order.trial.processes,
            "precision": order.trial.precision,
            "variables": order.environment(more),
            "log": str(order.log.resolve()),
            "scratch": str(order.scratch),
            "meeting": meeting(order),
        }
        with contextlib.suppress(ConnectionError):  # it is gone, which poll() sees
            self.control.sendall(json.dumps(request).encode() + b"\n")
        return started

    def listen(self, seconds: float = 0.0) -> None:
        """Take in what it has said, waiting for that so long."""
        while self.process is not None and not self.gone and select.select([self.control], [], [], seconds)[0]:
            seconds = 0.0
            try:
                got = self.control.recv(65536)
            except ConnectionError:
                got = b""
            self.gone = not got
            *lines, self.read = (self.read + got).split(b"\n")
            for line in lines:
                self._heard(json.loads(line))

    def _heard(self, answer: dict[str, Any]) -> None:
        if "pid" in answer:
            self.under_way[answer["launch_id"]].pid = answer["pid"]
        elif "code" in answer:
            self.under_way.pop(answer["launch_id"]).code = answer["code"]

    def expect(self, ended: WarmStarted) -> None:
        """Wait for the exit code of a launcher that has ended; give the process up if it does not come."""
        until = time.monotonic() + ANSWER_S
        while ended.code is None and self.process is not None and not self.gone:
            if time.monotonic() > until:
                self.give_up()
            self.listen(0.1)

    def give_up(self) -> None:
        """End the process, and with it all that it was still to fork."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.gone = True

    def wait(self, seconds: float) -> None:
        self.listen(seconds)
        if self.gone or self.process is None:
            time.sleep(seconds)

    def close(self) -> None:
        """End the process; what it has forked is the launches' to end."""
        if self.process is not None:
            self.control.close()
            self.process.kill()
            self.process.wait()
            self.process = None


def meeting(order: Order) -> dict[str, Any]:
    """How Accelerate's notebook_launcher gathers the ranks."""
    if order.local():
        return {"rdzv_backend": RENDEZVOUS, "rdzv_endpoint": order.meeting_point()}
    if order.trial.machines == 1:
        return {}
    place = order.place
    return {
        "num_nodes": order.trial.machines,
        "node_rank": place.machine,
        "master_addr": place.address,
        "use_port": str(place.port),
    }
