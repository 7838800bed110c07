"""Starts trials by forking them off a process that has their imports: no interpreter starts, nothing is imported."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.group import processes
from launch.group.accelerate_command import accelerate_command, inherited, option_words, words
from launch.group.starter import UNKILLABLE_S, StartRequest

RENDEZVOUS = "resbench"  # see launch.group.rendezvous, which imports torch
# For word of a launcher that has ended; the warm process tells it at once, unless it hangs.
ANSWER_S = 5.0


@dataclass
class WarmGroup:
    """A launcher forked by the warm process, its ranks in its session. `pid`: not known before the answer."""

    warm: WarmStarter
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


class WarmStarter:
    """Starts groups by forking them off a process that has their imports (launch.group.fork_server), which is started
    when first needed and again should it be gone. `log`: what it has to say."""

    name = "warm"

    def __init__(self, runner_id: str, log: Path) -> None:
        self.runner_id, self.log = runner_id, log
        self.process: subprocess.Popen[bytes] | None = None
        self.gone = False
        self.under_way: dict[str, WarmGroup] = {}
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
                [sys.executable, "-m", "launch.group.fork_server", str(theirs.fileno())],
                env=variables,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.gone, self.read = False, b""

    def start(self, request: StartRequest) -> WarmGroup:
        self.boot()
        more, _ = accelerate_command(request.trial, request.options, request.gpus, request.node)
        started = self.under_way[request.launch_id] = WarmGroup(self, request.launch_id)
        message = {
            "launch_id": request.launch_id,
            "experiment": request.trial.experiment,
            "words": [*words(request.trial), *option_words(request.options)],
            "processes": request.trial.processes,
            "precision": request.trial.precision,
            "variables": request.environment(more),
            "log": str(request.log.resolve()),
            "scratch": str(request.scratch),
            "meeting": meeting(request),
        }
        with contextlib.suppress(ConnectionError):  # it is gone, which poll() sees
            self.control.sendall(json.dumps(message).encode() + b"\n")
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

    def expect(self, ended: WarmGroup) -> None:
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


def meeting(request: StartRequest) -> dict[str, Any]:
    """How Accelerate's notebook_launcher gathers the ranks."""
    if request.local():
        return {"rdzv_backend": RENDEZVOUS, "rdzv_endpoint": request.meeting_point()}
    if request.trial.machines == 1:
        return {}
    node = request.node
    return {
        "num_nodes": request.trial.machines,
        "node_rank": node.machine,
        "master_addr": node.address,
        "use_port": str(node.port),
    }
