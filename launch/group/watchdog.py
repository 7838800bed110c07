"""A process that outlives the runner to end what it leaves behind, should it be killed itself.

It waits for the end of the runner, whose pipe then closes, and holds the run folder's lock until nothing of it is left.
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

from launch.group import processes

WAIT_S = 10.0
AGAIN_S = 0.1


@dataclass
class Watchdog:
    """The runner's side. `runner_id` is in the environment of all that the runner starts."""

    runner_id: str
    lock: int
    scratch: Path
    process: subprocess.Popen[bytes] | None = None
    lifeline: int = -1

    def watch(self) -> None:
        """See that there is one."""
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        reading, self.lifeline = os.pipe()
        command = [sys.executable, "-m", "launch.group.watchdog", self.runner_id, str(reading), str(self.scratch)]
        self.process = subprocess.Popen(
            command, pass_fds=(reading, self.lock), stdin=subprocess.DEVNULL, start_new_session=True
        )
        os.close(reading)

    def close(self) -> None:
        """Let it go; by now there is nothing left to end."""
        if self.process is not None:
            os.close(self.lifeline)
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:  # it is stopped, or hangs
                self.process.kill()
                self.process.wait()
            self.process = None


def main(runner_id: str, lifeline: str, scratch: str) -> None:
    """Wait for the runner's end, then kill what is left. Rows are whole whenever it comes (bench.record.csvfile)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(int(lifeline), 1):
        pass
    for _ in range(2):  # what was being started when the runner died shows its variables a moment later
        processes.end(lambda: processes.having(processes.RUNNER_ID, runner_id), grace_s=0.0)
        time.sleep(AGAIN_S)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
