"""Starts each trial by a fresh `accelerate launch`: seconds of imports each time, but no server."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from bench.called import module_words
from bench.variables import LAUNCH_ID
from launch.group import processes
from launch.group.starter import UNKILLABLE_S, StartRequest


@dataclass
class ColdGroup:
    """An `accelerate launch` in a session of its own, which Ctrl-C does not reach. Torch gives its ranks further ones,
    so members are recognised by an environment variable."""

    process: subprocess.Popen[bytes]
    launch_id: str

    def poll(self) -> int | None:
        return self.process.poll()

    def members(self) -> set[int]:
        return processes.with_variable(LAUNCH_ID, self.launch_id)

    def end(self, grace_s: float) -> set[int]:
        survivors = processes.end_all(self.members, grace_s, UNKILLABLE_S)
        if not survivors:
            self.process.wait()
        return survivors

    def start_failure(self) -> str:
        return ""


class ColdStarter:
    """A starter without state: every group is independent of the others."""

    name = "cold"

    def check(self) -> None:
        """It can always start another."""

    def start(self, request: StartRequest) -> ColdGroup:
        more, command = request.command()
        more["PET_LOG_DIR"] = str(request.scratch)  # torchrun leaves an empty folder there
        if request.is_local_group():
            first = module_words("")[0]
            index = command.index(first, command.index("--config_file"))  # of the trial's module, not accelerate's
            command[index:index] = ["--rdzv_backend", "c10d", "--rdzv_conf", "store_type=file"]
            more["PET_RDZV_ENDPOINT"] = request.rendezvous_file()
        with open(request.log, "a", encoding="utf-8") as log:
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
        """There is nothing to close: a group does not outlast its trial."""
