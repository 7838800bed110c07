"""A process that ends the runner's trials if the runner itself is killed.

It waits until the runner's end of a pipe closes, which the kernel does however the runner ends. It has the run folder's
lock too, so that the folder stays locked until the last process of the runner has ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.called import module_command
from bench.failure import last_phase
from bench.variables import RUNNER_ID
from launch.group import processes

# From the closed pipe to SIGKILL.
CLOSE_S = 10.0
# Between the two searches for processes that are left.
AGAIN_S = 0.1


@dataclass
class Watchdog:
    """The runner's side. `runner_id` is in the environment of all that the runner starts."""

    runner_id: str
    lock: int
    scratch: Path
    process: subprocess.Popen[bytes] | None = None
    lifeline: int = -1

    def ensure_running(self) -> None:
        """Start it, unless it runs: it may have been killed too."""
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        reading, self.lifeline = os.pipe()
        command = module_command("launch.group.watchdog", self.runner_id, str(reading), str(self.scratch))
        # It inherits the lock file: flock holds until the last process that has it open closes it, or ends.
        self.process = subprocess.Popen(
            command, pass_fds=(reading, self.lock), stdin=subprocess.DEVNULL, start_new_session=True
        )
        os.close(reading)

    def close(self) -> None:
        """End it. All trials have ended by now, so it finds nothing to end."""
        if self.process is not None:
            os.close(self.lifeline)
            try:
                self.process.wait(CLOSE_S)
            except subprocess.TimeoutExpired:  # it is stopped (SIGSTOP)
                self.process.kill()
                self.process.wait()
            self.process = None


def main(runner_id: str, lifeline: str, scratch: str) -> None:
    """Wait for the runner's end, then kill its processes. CSV files hold whole rows even so (bench.record.csvfile)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(int(lifeline), 1):
        pass
    for _ in range(2):  # a process that was just being started shows its variables only a moment later
        processes.end_all(lambda: processes.with_variable(RUNNER_ID, runner_id), grace_s=0.0)
        time.sleep(AGAIN_S)
    last_phase.remove(runner_id)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
