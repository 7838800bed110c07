"""Starts and ends each trial on all machines: machine 0 says what is to run, the others run their part of it.

Machine 0's state names one launch: `launch` is its id, `trial` which trial it is, `stop` whether it is to end. Another
machine's state says which launch it works on (`launch`), why its part failed (`cause`) and whether it is over
(`ended`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.failure import causes
from bench.failure.causes import Cause
from bench.terminal import say
from bench.trial import Trial
from launch.group.accelerate_command import NodeAddress
from launch.group.run_context import RunContext
from launch.group.starter import RunningGroup, Starter, StartRequest
from launch.group.trial_launch import GRACE_S, Launch
from launch.multi_node.address import interface_variables, node_address
from launch.multi_node.compatibility import fingerprint
from launch.multi_node.join import join_machine_0, wait_for_machines
from launch.multi_node.store import StoreConnection

POLL_S = 0.1


class PeerLost(Exception):
    """Machine 0 has left, or sends no heartbeat."""


@dataclass
class MultiNodeGroup:
    """A process group on all machines, as machine 0 sees it."""

    coordinator: Coordinator
    local: RunningGroup
    launch_id: str
    logs: Path
    pending: set[int]
    """Ranks of the other machines whose part is not over yet."""

    def poll(self) -> int | None:
        self.update()
        return self.local.poll()

    def members(self) -> set[int]:
        return self.local.members()

    def start_failure(self) -> str:
        return self.local.start_failure()

    def update(self) -> None:
        """Put on record why a part on another machine failed, and find out which are over."""
        connection = self.coordinator.connection
        for rank in sorted(self.pending):
            state = connection.state(rank)
            ours = state.get("launch") == self.launch_id  # or it still shows the trial before
            if ours and isinstance(cause := state.get("cause"), dict):
                columns = {name: value for name, value in cause.items() if name in Cause._fields}
                columns["error"] = f"{connection.peers[rank].name}: {cause.get('error')}"
                causes.record(self.logs, self.launch_id, Cause(**columns))
            if ours and state.get("ended"):
                self.pending.discard(rank)
            elif why := connection.loss(rank):
                self.pending.discard(rank)
                self.coordinator.lost = why
                causes.record(self.logs, self.launch_id, Cause("crashed", why))

    def end(self, grace_s: float) -> set[int]:
        """End the group on all machines. Parts that end by themselves get the time for it."""
        if self.local.poll() == 0:
            self.wait_for_others(grace_s)
        # The launch stays in the state, so that a machine that has not seen it yet reports its end too.
        self.coordinator.connection.publish(stop=True)
        left = self.local.end(grace_s)
        self.wait_for_others(3 * grace_s)
        return left

    def wait_for_others(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self.update()
        while self.pending and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.update()


@dataclass
class Coordinator:
    """The starter of machine 0, which has the other machines start their parts too. `lost`: why it cannot any more."""

    local: Starter
    node: NodeAddress
    connection: StoreConnection
    lost: str | None = None

    def __post_init__(self) -> None:
        self.name = self.local.name

    def check(self) -> None:
        if self.lost:
            raise UsageError(f"{self.lost}; no other trial is started: go on with --resume")

    def start(self, request: StartRequest) -> MultiNodeGroup:
        variables = {**request.variables, **interface_variables(self.node.address)}
        request = dataclasses.replace(request, node=self.node, variables=variables)
        trial = [request.trial.key(), request.trial.repeat]
        self.connection.publish(launch=request.launch_id, trial=trial, stop=False)  # first: all import torch meanwhile
        local = self.local.start(request)
        logs = request.options.out / "logs"
        return MultiNodeGroup(self, local, request.launch_id, logs, set(self.connection.peers))

    def wait(self, seconds: float) -> None:
        self.local.wait(seconds)

    def close(self) -> None:
        self.local.close()


def run_as_machine_0(context: RunContext, trials: Sequence[Trial], work: Callable[[RunContext], int]) -> int:
    """Do the work with a starter that starts groups on all machines: its exit code, which the others end with too.

    Raises UsageError if the machines do not come together.
    """
    options, count = context.run_options, trials[0].machines
    node = node_address(options)
    say(f"waiting for {count - 1} more machine(s) at {options.rendezvous}")
    ours = fingerprint(trials, context.options.resume, context.options.trace)
    code = 1
    with contextlib.closing(wait_for_machines(options.rendezvous, count, ours, options.join_timeout)) as connection:
        try:
            code = work(dataclasses.replace(context, starter=Coordinator(context.starter, node, connection)))
        finally:
            connection.publish(exit_code=code)
    return code


def run_as_other_machine(context: RunContext, trials: Sequence[Trial]) -> int:
    """Run this machine's part of each trial that machine 0 starts; 0 if all ended well, else 1.

    Raises UsageError if machine 0 cannot be reached, or refuses this one.
    """
    options = context.run_options
    node = node_address(options)
    ours = fingerprint(trials, context.options.resume, context.options.trace)
    # Machine 0 alone keeps the time limits, so that a trial ends for one reason.
    context = dataclasses.replace(context, run_options=dataclasses.replace(options, timeout=None, stall_timeout=None))
    by_key = {(trial.key(), trial.repeat): trial for trial in trials}
    last: str | None = None
    with contextlib.closing(
        join_machine_0(options.rendezvous, options.machine_rank, ours, options.join_timeout)
    ) as connection:
        try:
            while (code := (state := connection.state(0)).get("exit_code")) is None:
                context.watchdog.ensure_running()
                launch_id = state.get("launch")
                if launch_id is not None and launch_id != last:
                    last = launch_id
                    trial = by_key[tuple(state["trial"])]
                    run_part(Launch(trial, context, trial.title(), (), node, launch_id), connection)
                check(connection)
                time.sleep(POLL_S)
        except PeerLost as error:
            say(f"error: {error}; what ran here is ended")
            return 1
    return 0 if code == 0 else 1


def check(connection: StoreConnection) -> None:
    """Raises PeerLost if machine 0 is lost."""
    if why := connection.loss(0):
        raise PeerLost(why)


def run_part(part: Launch, connection: StoreConnection) -> None:
    """Run this machine's part of one trial until it ends, or until machine 0 stops it.

    Raises PeerLost if machine 0 is lost.
    """
    say(f"{part.title}: this machine's part of it")
    # All at once: the last launch's end must not be read as this one's.
    connection.publish(launch=part.launch_id, cause=None, ended=False)
    stopped = False
    try:
        part.start(interface_variables(part.node.address))
        while not part.watch() and not stopped:
            part.context.watchdog.ensure_running()
            time.sleep(POLL_S)
            state = connection.state(0)
            stopped = state.get("launch") != part.launch_id or bool(state.get("stop"))
            # At once, since this failure makes machine 0's ranks fail too, for a reason that says less.
            publish_cause(part, connection)
            check(connection)
        if part.exit_code and not stopped:
            part.record_cause(part.unrecorded_cause())
    finally:
        if part.group is not None:
            part.group.end(GRACE_S)
        part.remove_working_files()
    publish_cause(part, connection)
    connection.publish(ended=True)


def publish_cause(part: Launch, connection: StoreConnection) -> None:
    """Say why this machine's part fails, if that is on record."""
    if (cause := causes.recorded(part.folder.logs(), part.launch_id)) is not None:
        connection.publish(cause=cause._asdict())
