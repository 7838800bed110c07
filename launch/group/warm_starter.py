"""Starts trials by forking a process that has done the imports (launch.group.fork_server): the client of that server.

This takes the 2 to 5 seconds of `import torch` off each trial but the first.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.called import module_command
from bench.variables import RUNNER_ID
from launch.group import processes
from launch.group.accelerate_command import inherited, work_of
from launch.group.starter import UNKILLABLE_S, StartRequest
from launch.interrupts import undisturbed

RENDEZVOUS = "resbench"  # see launch.group.rendezvous, which imports torch
# From a launcher's end to its exit code. The server answers at once; if it does not, it hangs and is killed.
ANSWER_S = 5.0


@dataclass
class WarmGroup:
    """A launcher that the server forked, and the ranks in its session. `pid`: None until the server has answered."""

    starter: WarmStarter
    launch_id: str
    pid: int | None = None
    exit_code: int | None = None
    orphaned: bool = False

    def poll(self) -> int | None:
        self.starter.read_answers()
        if self.exit_code is None and self.pid is not None and not processes.is_running(self.pid):
            self.starter.await_exit_code(self)
        if self.exit_code is None and self.starter.server_gone:
            self.exit_code, self.orphaned = 1, True
        return self.exit_code

    def members(self) -> set[int]:
        self.starter.read_answers()
        if self.pid is not None:
            return processes.in_session(self.pid)
        if not self.starter.server_gone:
            return set()
        # The server may have forked it and died before it could answer.
        return processes.with_variable(RUNNER_ID, self.starter.runner_id)

    def end(self, grace_s: float) -> set[int]:
        self.starter.read_answers()
        if self.pid is None and self.exit_code is None:  # requested and not yet forked: prevent that
            self.starter.kill_server()
        survivors = processes.end_all(self.members, grace_s, UNKILLABLE_S)
        self.starter.await_exit_code(self)
        return survivors

    def start_failure(self) -> str:
        if not self.orphaned:
            return ""
        return f"the process that forks trials has ended; see {self.starter.log}, or start without it by --cold"


class WarmStarter:
    """Starts the server when first needed, and again if it has ended. `log`: what the server prints."""

    name = "warm"

    def __init__(self, runner_id: str, log: Path) -> None:
        self.runner_id, self.log = runner_id, log
        self.server: subprocess.Popen[bytes] | None = None
        self.server_gone = False
        self.running: dict[str, WarmGroup] = {}
        """Groups without an exit code, by launch id."""

    def check(self) -> None:
        """It can always start another: a server that has ended is replaced."""

    def ensure_server(self) -> None:
        """Start the server unless it runs. It imports while we go on."""
        if self.server is not None and not self.server_gone:
            return
        self.close()
        for group in self.running.values():  # whose exit codes the server that has ended will not send
            group.exit_code, group.orphaned = 1, True
        self.running.clear()
        self.connection: Connection
        self.connection, theirs = Pipe()
        variables = {**inherited(), RUNNER_ID: self.runner_id}
        # OpenBLAS would start threads at import, which no fork has; torch starts its own later and does not use it.
        variables.setdefault("OPENBLAS_NUM_THREADS", "1")
        # A signal between the server's start and its being known would leave it running.
        with undisturbed(), theirs, open(self.log, "a", encoding="utf-8") as log:
            self.server = subprocess.Popen(
                module_command("launch.group.fork_server", str(theirs.fileno())),
                env=variables,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us alone
            )
        self.server_gone = False

    def start(self, request: StartRequest) -> WarmGroup:
        self.ensure_server()
        more, _ = request.command()
        work = request.work or work_of(request.trial, request.options)
        group = self.running[request.launch_id] = WarmGroup(self, request.launch_id)
        message = {
            "launch_id": request.launch_id,
            "module": work.module,
            "words": work.words,
            "processes": request.trial.processes,
            "precision": request.trial.precision,
            "variables": request.environment(more),
            "log": str(request.log.resolve()),
            "scratch": str(request.scratch),
            "rendezvous": rendezvous_options(request),
        }
        # ConnectionError: the server has ended, which poll() reports.
        with undisturbed(), contextlib.suppress(ConnectionError):
            self.connection.send_bytes(json.dumps(message).encode())
        return group

    def read_answers(self, seconds: float = 0.0) -> None:
        """Read what the server has answered, waiting so long for the first."""
        while self.server is not None and not self.server_gone:
            try:
                if not self.connection.poll(seconds):
                    return
                with undisturbed():  # a signal amid a message would leave its rest to be read as the next one
                    answer = json.loads(self.connection.recv_bytes())
            except (EOFError, OSError):  # it ended, perhaps amid a message
                self.server_gone = True
                return
            seconds = 0.0
            if "pid" in answer:
                self.running[answer["launch_id"]].pid = answer["pid"]
            elif "exit_code" in answer:
                self.running.pop(answer["launch_id"]).exit_code = answer["exit_code"]

    def await_exit_code(self, group: WarmGroup) -> None:
        """Wait for the exit code of a launcher that has ended; kill the server if it does not come."""
        deadline = time.monotonic() + ANSWER_S
        while group.exit_code is None and self.server is not None and not self.server_gone:
            if time.monotonic() > deadline:
                self.kill_server()
            self.read_answers(0.1)

    def kill_server(self) -> None:
        """Kill the server, and with it what it was still to fork."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()
        self.server_gone = True

    def wait(self, seconds: float) -> None:
        self.read_answers(seconds)
        if self.server_gone or self.server is None:
            time.sleep(seconds)

    def close(self) -> None:
        """End the server. The groups that it has forked go on; each launch ends its own."""
        if self.server is not None:
            self.kill_server()
            self.connection.close()
            self.server = None


def rendezvous_options(request: StartRequest) -> dict[str, Any]:
    """The arguments of Accelerate's notebook_launcher that say how the ranks meet."""
    if request.is_local_group():
        return {"rdzv_backend": RENDEZVOUS, "rdzv_endpoint": request.rendezvous_file()}
    if request.trial.machines == 1:
        return {}
    node = request.node
    return {
        "num_nodes": request.trial.machines,
        "node_rank": node.machine,
        "master_addr": node.address,
        "use_port": str(node.port),
    }
