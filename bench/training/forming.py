"""Do all processes come of a group that was set up by hand? If not, variables may be left over from something else.

torch's own wait lasts as long as a collective may take, without a word; and it has no end where something else listens
at the address.
"""

from __future__ import annotations

import datetime
import os
import socket
import threading
import time

import torch
from accelerate.utils.environment import get_cpu_distributed_information

from bench.errors import UsageError
from bench.instruments.collectives import in_group
from bench.terminal import say
from bench.variables import LAUNCH_ID

# The processes of one command import torch at the same time; by hand, somebody goes to the next terminal.
FORM_S = 120.0
SAY_AFTER_S = 5.0
POLL_S = 0.05
ATTEMPT_S = 5.0
# By which a process is told that it is one of several: of torchrun, of MPI's launchers, and where rank 0 is.
NAMES: tuple[str, ...] = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
NAMES += ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Arrival:
    """Announces this process at rank 0's address and counts who has come, in a thread: each call may take for ever."""

    def __init__(self, host: str, port: int, rank: int, processes: int) -> None:
        self.host, self.port, self.rank, self.processes = host, port, rank, processes
        self.came = 0
        self.reached = self.given_up = False
        self.failure: Exception | None = None
        self.store: torch.distributed.TCPStore | None = None
        self.thread = threading.Thread(target=self._run, name="arrival", daemon=True)
        self.thread.start()

    def wait(self, seconds: float) -> None:
        """Wait so long for all to come."""
        deadline = time.monotonic() + seconds
        while self.thread.is_alive() and time.monotonic() < deadline:
            self.thread.join(POLL_S)

    def is_complete(self) -> bool:
        """Whether all have come."""
        return self.came >= self.processes

    def _run(self) -> None:
        try:
            # torchrun's own process has the store, and its ranks are clients of that.
            hosts = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            if hosts:
                socket.create_server(("", self.port)).close()  # torch prints C++ stacks where the port is taken
            else:
                self._reach()
            store = self.store = torch.distributed.TCPStore(
                self.host,
                self.port,
                self.processes,
                is_master=hosts,
                timeout=datetime.timedelta(seconds=FORM_S),
                wait_for_workers=False,
                multi_tenant=True,  # rank 0's group will use the same server
            )
            self.reached = True
            key = f"resbench/came/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
            self.came = store.add(key, 1)
            while not (self.is_complete() or self.given_up):
                time.sleep(POLL_S)
                self.came = store.add(key, 0)
        except Exception as error:  # for the thread that waits
            self.failure = error

    def _reach(self) -> None:
        """Wait until somebody listens at the address. A store prints C++ stacks while it does so itself."""
        while not (self._answers() or self.given_up):
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), ATTEMPT_S).close()
        except OSError:
            return False
        return True


def wait_for_all() -> Arrival | None:
    """Wait until all processes of a group that was set up by hand have come; None: it is none.

    Keep what is returned until the group has formed. Raises UsageError if not all come within FORM_S.
    """
    found = get_cpu_distributed_information()
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT") or "29500"  # Accelerate's own default
    # A launcher of ours watches the group that it starts, and ends it.
    if os.environ.get(LAUNCH_ID) or in_group() or found.world_size < 2 or not host or not port.isdecimal():
        return None
    given = " ".join(f"{name}={os.environ[name]}" for name in NAMES if name in os.environ)
    arrival = Arrival(host, int(port), found.rank, found.world_size)
    arrival.wait(SAY_AFTER_S)
    if arrival.thread.is_alive() and not arrival.is_complete():
        say(f"waiting up to {FORM_S:g} s for all {found.world_size} processes at {host}:{port}, by {given}")
        arrival.wait(FORM_S - SAY_AFTER_S)
    if arrival.is_complete():
        return arrival
    arrival.given_up = True
    unset = " ".join(f"-u {name}" for name in NAMES if name in os.environ)
    raise UsageError(
        f"{given} make this process one of {found.world_size}, but {_what_is_wrong(arrival)}; to train in one process, "
        f"take the variables away: env {unset} python -m ...; for several, use python -m launch run --processes"
    )


def _what_is_wrong(arrival: Arrival) -> str:
    where = f"{arrival.host}:{arrival.port}"
    if arrival.failure is not None and arrival.came:
        return f"the connection to {where} broke after {arrival.came} had come"
    if arrival.failure is not None:
        return f"rank {arrival.rank} cannot use {where} ({' '.join(str(arrival.failure).split())[:160]})"
    if not arrival.reached:
        return f"rank 0 did not answer at {where} within {FORM_S:g} s"
    return f"only {arrival.came} came to {where} within {FORM_S:g} s"
