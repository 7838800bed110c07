"""A limit on the CPU: what fits is granted, what does not is refused, and the row says at what and of how much."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import planted
import pytest
from conftest import CHECKOUT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs Linux and glibc's malloc")
MIB = 2**20
LIMIT = 96 * MIB
ASKED = 200_000_003  # a number that nothing else asks for
PHASES = ["setup", "data", "forward", "backward", "optimizer", "evaluation"]
START = f"""
import torch
from bench.machine import malloc, memory_limit
from bench.trial import Trial

def granted(count):
    try:
        return torch.empty(count, dtype=torch.uint8)
    except RuntimeError:
        return None

malloc.return_freed_memory()
torch.set_num_threads(4)
held = memory_limit.apply(Trial(memory_limit_bytes={LIMIT}), torch.device("cpu")).held_bytes
"""


def under_the_limit(code: str) -> list[int]:
    """The numbers that this code prints in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    words = [sys.executable, "-c", START + code]
    done = subprocess.run(words, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_the_limit_is_granted_to_the_page_and_what_is_freed_is_granted_again() -> None:
    """Beyond it, what is free at the top of malloc's heap (up to 128 KiB and a step) is made use of, and no more."""
    code = """
room = LIMIT - held() - 8192  # malloc puts a header of its own in front, and pages are whole
print(room, *(int(granted(room) is not None) for _ in range(5)), int(granted(room + 2**18) is not None))
parts = [granted(room // 16 - 131072) for _ in range(16)]
print(sum(part is not None for part in parts), int(granted(2**22) is not None))
del parts
print(int(granted(room - 2**20) is not None))
"""
    room, *answers = under_the_limit(code.replace("LIMIT", str(LIMIT)))
    assert LIMIT - MIB < room < LIMIT
    assert answers == [1, 1, 1, 1, 1, 0, 16, 0, 1]


def test_what_tensors_hold_is_told_to_the_page() -> None:
    before, with_it, after = under_the_limit("""
print(held())
tensor = torch.empty(40_000_000, dtype=torch.uint8)
print(held())
del tensor
print(held())
""")
    assert 40_000_000 <= with_it - before <= 40_000_000 + 2 * 4096
    assert after == before


def test_threads_are_none_of_what_is_held() -> None:
    """The stack of one alone is 8 MiB."""
    computing, feeding = under_the_limit("""
import threading
torch.nn.Conv2d(3, 16, 3)(torch.zeros(16, 3, 32, 32)).sum().backward()
print(held())
go = threading.Event()
for _ in range(2):  # as many as a Trial has loader workers
    threading.Thread(target=go.wait).start()
print(held())
go.set()
""")
    assert computing < 8 * MIB
    assert feeding < 8 * MIB


def test_a_limit_that_is_lifted_is_none() -> None:
    assert under_the_limit(f"memory_limit.remove(); print(int(granted({4 * LIMIT}) is not None))") == [1]


# Trials


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_the_row_names_phase_rank_and_bytes(phase: str, processes: int, tmp_path: Path) -> None:
    """The last rank asks for more than its limit; the others wait for it."""
    trial = planted.settings(micro_batch=4 // processes, processes=processes, memory_limit_bytes=LIMIT)
    last: dict[str, Any] = {"asked": ASKED, "rank": processes - 1}
    build = planted.smooth if phase == "data" else functools.partial(planted.greedy, phase=phase, **last)
    load = functools.partial(planted.greedy_noise, **last) if phase == "data" else planted.noise
    ran = planted.run(tmp_path, trial, build, load)
    assert ran.codes == [1] * processes, ran.said()
    row = ran.row()
    assert (row["status"], row["oom_phase"], row["oom_requested_bytes"]) == ("oom", phase, str(ASKED))
    assert 0 <= int(row["oom_held_bytes"]) < LIMIT
    assert f"tried to allocate {ASKED} bytes" in row["error"]
    assert row["error"].startswith("rank 1: ") == (processes == 2)


def test_what_the_limit_grants_trains(tmp_path: Path) -> None:
    build = functools.partial(planted.greedy, phase="backward", asked=LIMIT // 2)
    ran = planted.run(tmp_path, planted.settings(micro_batch=4, memory_limit_bytes=LIMIT), build, planted.noise)
    row = planted.well(ran).row()
    assert (row["status"], row["memory_limit_bytes"]) == ("ok", str(LIMIT))
    assert (row["oom_phase"], row["oom_requested_bytes"], row["oom_held_bytes"]) == ("", "", "")
    (environment,) = json.loads((tmp_path / "environment.json").read_text()).values()
    assert environment["malloc_returns_freed"] is True


def test_without_a_limit_the_phase_and_the_bytes_asked_for_are_told_all_the_same(tmp_path: Path) -> None:
    build = functools.partial(planted.greedy, phase="backward", asked=2**60)
    row = planted.run(tmp_path, planted.settings(micro_batch=4), build, planted.noise).row()
    assert (row["status"], row["oom_phase"], row["oom_requested_bytes"]) == ("oom", "backward", str(2**60))
    assert row["oom_held_bytes"] == ""


def test_the_limit_is_lifted_before_the_row_is_written(tmp_path: Path) -> None:
    """Memory is full to the last kilobyte, and stays so: the exception holds the function that holds it."""
    ran = planted.run(
        tmp_path, planted.settings(micro_batch=4, memory_limit_bytes=LIMIT), planted.filling, planted.noise
    )
    row = ran.row()
    assert (row["status"], row["oom_phase"], row["oom_requested_bytes"]) == ("oom", "forward", "")
    # Reading it takes a buffer of 8 KiB, for which malloc's heap may grow by that, a header and a step of 128 KiB.
    assert LIMIT - 2 * MIB < int(row["oom_held_bytes"]) <= LIMIT + 35 * 4096
    assert row["error"].startswith("MemoryError")
    assert "Traceback" in ran.said()


def test_loader_workers_are_other_processes(tmp_path: Path) -> None:
    """Each image takes twice the limit to read."""
    load = functools.partial(planted.costly, cost=2 * LIMIT)
    trial = planted.settings(micro_batch=4, pipeline="loader", workers=2, memory_limit_bytes=LIMIT)
    planted.well(planted.run(tmp_path, trial, planted.smooth, load))


def test_a_loader_worker_that_gets_no_memory_is_out_of_memory_in_data(tmp_path: Path) -> None:
    load = functools.partial(planted.costly, cost=2**60)
    trial = planted.settings(micro_batch=4, pipeline="loader", workers=1)
    row = planted.run(tmp_path, trial, planted.smooth, load).row()
    assert (row["status"], row["oom_phase"], row["oom_requested_bytes"]) == ("oom", "data", str(2**60))
