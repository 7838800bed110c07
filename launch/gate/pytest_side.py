"""One side's launches of pytest.

What a launch leaves is pytest-benchmark's JSON, to which `finish` adds what that lacks: the number of the pair, its
round, and the tests that failed. reports.verdicts.pytest_benchmark reads both.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import INTERRUPTED, UsageError
from bench.record.csvfile import write_whole
from bench.terminal import say
from launch.gate.pytest_project import PASSED, Project
from launch.gate.sides import Side

FAILED = 1


@dataclass(frozen=True)
class PytestSide(Side):
    """`tests`: the ids of those that it runs."""

    OUTPUT: ClassVar[str] = "pytest.txt"
    ERRORS: ClassVar[int | None] = subprocess.STDOUT
    STALL_S: ClassVar[float] = 1800.0  # as run's --stall-timeout

    project: Project
    tests: Sequence[str]

    def finish(self, number: int, code: int, round: str) -> None:
        """Complete the launch's JSON. Raises UsageError if it has measured nothing although nothing failed."""
        outcomes = self.project.outcomes(str(number))
        self.project.refuse_foreign(outcomes)
        failed = self.failed(outcomes, code)
        for test in failed:
            say(f"{self.name}: {test['fullname']}: {test['error']}; see {self.folder / self.OUTPUT}")
        path = launch_file(self.folder, number)
        launch = read(path) or self.nothing_measured()
        if launch["benchmarks"] or failed:
            write_whole(path, json.dumps({**launch, "resbench": {"pair": number, "round": round, "failed": failed}}))
            return
        path.unlink(missing_ok=True)
        if code == PASSED:
            raise UsageError(f"{self.name}: no test has measured anything; see {self.folder / self.OUTPUT}")

    def failed(self, outcomes: Sequence[Mapping[str, Any]], code: int) -> list[dict[str, str]]:
        """The tests that failed: their ids and errors. If pytest itself ended badly, that was the one under way."""
        errors = {each["ended"]: each["error"] for each in outcomes if "ended" in each}
        failed = {name: error for name, error in errors.items() if error}
        if code not in (PASSED, FAILED, INTERRUPTED):
            begun = [each["started"] for each in outcomes if "started" in each]
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"pytest ended with exit code {code}"
            failed |= {name: why for name in begun[-1:] or self.tests if name not in errors}
        return [{"fullname": name, "error": error} for name, error in failed.items()]

    def nothing_measured(self) -> dict[str, Any]:
        """The JSON of a launch for which pytest-benchmark has written none."""
        info = {"id": self.commit, "dirty": False}
        now = datetime.now(timezone.utc).isoformat()
        return {"datetime": now, "machine_info": {}, "commit_info": info, "benchmarks": []}

    def rows(self) -> list[dict[str, str]]:
        """A row for each launch, with what launch.gate.measure looks at."""
        return [row(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(self.folder.glob("*.json"))]

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End pytest and whatever it has started."""
        kill(process, signal.SIGKILL)

    def give_up(self, process: subprocess.Popen[bytes]) -> None:
        """At SIGABRT, pytest writes where each of its threads is."""
        kill(process, signal.SIGABRT)


def launch_file(folder: Path, number: int) -> Path:
    """The JSON of the launch of this pair."""
    return folder / f"{number:04}.json"


def read(path: Path) -> dict[str, Any] | None:
    """pytest-benchmark's JSON; None: it wrote none, or not all of it."""
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return None


def row(launch: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a launch, as trials.csv has them. No device: only a GPU's memory ends with OutOfMemoryError."""
    commit = launch.get("commit_info") or {}  # a hook of the project may have replaced it
    errors = " ".join(each["error"] for each in launch["resbench"]["failed"])
    return {
        "status": "oom" if "OutOfMemoryError" in errors else "crashed" if errors else "ok",
        "commit": str(commit.get("id") or "")[:12] + ("-dirty" if commit.get("dirty") else ""),
        "device_name": "",
        "memory_limit_bytes": "",
    }


def kill(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to all of the process's group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
