"""A trial's processes on several machines: machine 0 starts them on all, the others do as they are told."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.failure import causes
from bench.failure.causes import Cause
from bench.terminal import say
from bench.trial import Trial
from launch.group.accelerate_command import NodeAddress
from launch.group.run_context import RunContext
from launch.group.starter import RunningGroup, Starter, StartRequest
from launch.group.trial_launch import GRACE_S, Launch
from launch.multi_node import machines
from launch.multi_node.machines import Line, Lost
from launch.run_options import RunOptions

POLL_S = 0.1


def node_address(options: RunOptions) -> NodeAddress:
    """As node_by_name, with the address that the name stands for here. UsageError: none is known in time."""
    node = machines.node_by_name(options)
    return dataclasses.replace(node, address=machines.resolve(node.address, node.port - 1, options.join_timeout)[1][0])


def reachable(line: Line) -> dict[str, str]:
    """Variables by which gloo and NCCL take the interface that leads to the others, unless the user chose one."""
    name = line.interface()
    # NCCL takes all interfaces whose name begins so, but for the sign.
    ours = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} if name else {}
    return {variable: value for variable, value in ours.items() if not os.environ.get(variable)}


@dataclass
class CrewStarted:
    """A group whose processes are on all machines, as machine 0 sees it."""

    crew: Crew
    local: RunningGroup
    launch_id: str
    logs: Path
    ended: set[int] = field(default_factory=set)

    def poll(self) -> int | None:
        self.listen(0.0)
        return self.local.poll()

    def members(self) -> set[int]:
        return self.local.members()

    def start_failure(self) -> str:
        return self.local.start_failure()

    def listen(self, seconds: float) -> None:
        """Take in what the others say of this launch: why one of them ended is on record then."""
        for number, line in self.crew.lines.items():
            if number in self.crew.lost or number in self.ended:
                continue
            try:
                messages = line.hear(seconds)
            except Lost as error:
                self.crew.lost[number] = str(error)
                causes.record(self.logs, self.launch_id, Cause("crashed", str(error)))
                continue
            for message in messages:
                if message.get("of") != self.launch_id:
                    continue
                if cause := message.get("cause"):
                    known = {name: value for name, value in cause.items() if name in Cause._fields}
                    known |= {"error": f"{line.name}: {cause.get('error')}"}
                    causes.record(self.logs, self.launch_id, Cause(**known))
                if message.get("ended"):
                    self.ended.add(number)

    def end(self, grace_s: float) -> set[int]:
        """End the group on all machines. What is well on its way out is waited for."""
        if self.local.poll() == 0:
            self.wait_for_others(grace_s)
        for number in self.crew.lines.keys() - self.ended - self.crew.lost.keys():
            self.crew.lines[number].say(stop=self.launch_id)
        left = self.local.end(grace_s)
        self.wait_for_others(3 * grace_s)
        return left

    def wait_for_others(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.crew.lines.keys() - self.ended - self.crew.lost.keys():
            self.listen(POLL_S)
            if time.monotonic() > deadline:
                return


@dataclass
class Crew:
    """The starter of machine 0: starts groups here, and has the other machines start their part."""

    local: Starter
    node: NodeAddress
    lines: dict[int, Line]
    lost: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.local.name

    def check(self) -> None:
        if self.lost:
            raise UsageError(f"{next(iter(self.lost.values()))}; no other trial is started: go on with --resume")

    def start(self, request: StartRequest) -> CrewStarted:
        first = next(iter(self.lines.values()))
        request = dataclasses.replace(request, node=self.node, variables={**request.variables, **reachable(first)})
        for line in self.lines.values():
            line.say(run=[request.trial.key(), request.trial.repeat], launch_id=request.launch_id)
        logs = request.options.out / "logs"
        return CrewStarted(self, self.local.start(request), request.launch_id, logs)

    def wait(self, seconds: float) -> None:
        self.local.wait(seconds)

    def close(self) -> None:
        self.local.close()


def lead(context: RunContext, trials: Sequence[Trial], work: Callable[[RunContext], int]) -> int:
    """As machine 0, do the work, which starts groups on all machines; its exit code, which the others end with too.

    UsageError: they do not come together.
    """
    options, count = context.run_options, trials[0].machines
    node = node_address(options)
    say(f"waiting for {count - 1} more machine(s) at {options.rendezvous}")
    lines = machines.gather(
        options.rendezvous, count, machines.facts(trials, context.options.resume), options.join_timeout
    )
    code = 1
    with contextlib.ExitStack() as beats:
        for line in lines.values():
            beats.enter_context(line.beating())
        try:
            code = work(dataclasses.replace(context, starter=Crew(context.starter, node, lines)))
        finally:
            for line in lines.values():
                line.say(bye=code)
    return code


def serve(context: RunContext, trials: Sequence[Trial]) -> int:
    """As another machine, start this machine's part of each trial that machine 0 begins; 0: all ended well, 1: not.

    UsageError: machine 0 cannot be reached, or refuses this one.
    """
    options = context.run_options
    node = node_address(options)
    ours = machines.facts(trials, context.options.resume)
    line = machines.join(options.rendezvous, options.machine_rank, ours, options.join_timeout)
    # It is machine 0 that keeps the time.
    context = dataclasses.replace(context, run_options=dataclasses.replace(options, timeout=None, stall_timeout=None))
    known = {(trial.key(), trial.repeat): trial for trial in trials}
    with line.beating(), contextlib.closing(line.socket):
        try:
            while True:
                context.watchdog.ensure_running()
                for message in line.hear(1.0):
                    if "bye" in message:
                        return 0 if message["bye"] == 0 else 1
                    if "run" in message:
                        key, repeat = message["run"]
                        trial = known[key, repeat]
                        part = Launch(trial, context, f"{trial.experiment} {trial.arm}", (), node, message["launch_id"])
                        serve_trial(part, line)
        except Lost as error:
            say(f"error: {error}; what ran here is ended")
            return 1


def serve_trial(part: Launch, line: Line) -> None:
    """Run this machine's part of one trial to its end, or to machine 0's word. Lost: machine 0 is."""
    say(f"{part.title}: this machine's part of it")
    stopped = told = False
    try:
        part.start(reachable(line))
        while not part.has_ended() and not stopped:
            part.context.watchdog.ensure_running()
            messages: list[dict[str, Any]] = line.hear(POLL_S)
            stopped = any(message.get("stop") == part.launch_id for message in messages)
            told = told or tell_cause(part, line)  # at once, for it makes machine 0's ranks fail too
        if part.exit_code and not stopped:
            part.record_cause(part.unrecorded_cause())
    finally:
        if part.group is not None:
            part.group.end(GRACE_S)
        part.remove_working_files()
    if not told:
        tell_cause(part, line)
    line.say(of=part.launch_id, ended=True)


def tell_cause(part: Launch, line: Line) -> bool:
    """Say why this machine's part ends, if that is on record; whether it is."""
    cause = causes.recorded(part.folder.logs(), part.launch_id)
    if cause is not None:
        line.say(of=part.launch_id, cause=cause._asdict())
    return cause is not None
