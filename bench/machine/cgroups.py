"""What the control groups of this process leave it of memory and CPUs: a container's limits. Imports no torch.

Versions 1 and 2 of control groups are read, and both where a machine has both. The limits of all ancestors hold; of
those outside a namespace, version 1 shows the memory limit and version 2 nothing. Sources: the kernel's
Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and scheduler/sched-bwc.rst.

Swap is no free memory here, as it is none in MemAvailable: a trial that swaps measures a disk. Version 1's common limit
of memory and swap (memsw) does hold.

Files are read below `root`, which is / but in tests.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.machine.procfs import meminfo, text

# (limit, what counts against it), in bytes: first of version 2, then of version 1. Over memory.high nothing is killed,
# but the kernel slows the group down for as long as it takes more.
MEMORY = (
    ("memory.max", "memory.current"),
    ("memory.high", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
)
NO_LIMIT_BYTES = 2**60  # version 1 spells "no limit" as the last page below 2^63


class MemoryLimit(NamedTuple):
    """What a limit leaves now, the limit, and the file that has it. Of the whole machine: MemAvailable, MemTotal."""

    free_bytes: int
    limit_bytes: int
    source: str

    def explain(self) -> str:
        """Where the free bytes come from."""
        if self.source == "MemAvailable":
            return self.source
        return f"control group, {self.limit_bytes / 2**30:.2f} GiB by {self.source}"


class CpuQuota(NamedTuple):
    """CPU seconds that the group may take in a second, and the file that says so."""

    cpus: float
    source: str


def free_memory(root: Path = Path("/")) -> MemoryLimit | None:
    """What is free for this process: MemAvailable, or less by the tightest of its groups. None: the kernel tells none.

    As MemAvailable counts the page cache, a group's inactive file pages count as free: the kernel takes them first.
    """
    host = meminfo(root)
    found = memory_limits(root)
    if (available := host.get("MemAvailable")) is not None:
        found.append(MemoryLimit(available, host.get("MemTotal", available), "MemAvailable"))
    return min(found, default=None, key=lambda limit: limit.free_bytes)


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """All limits on this process's memory, those of its own group first."""
    found: list[MemoryLimit] = []
    inherited: list[MemoryLimit] = []
    for folder in _folders("memory", root):
        entries = dict(re.findall(r"^(\w+) (\d+)$", text(folder / "memory.stat"), re.MULTILINE))
        inactive = int(entries.get("total_inactive_file") or entries.get("inactive_file") or 0)
        # In version 1 the tightest limit of all ancestors, also of those that cannot be seen. What they use cannot
        # either; it is at least what this group uses.
        known = entries.get("hierarchical_memory_limit")
        limits = [(_number(folder / limit), used, _name(folder / limit, root)) for limit, used in MEMORY]
        limits += [(known and int(known), MEMORY[2][1], f"hierarchical_memory_limit in {_name(folder, root)}")]
        for limit, used_file, source in limits:
            if limit is None or limit >= NO_LIMIT_BYTES:
                continue
            used = _number(folder / used_file) or 0
            free = max(0, limit - used + min(inactive, used))
            (inherited if source.startswith("hierarchical") else found).append(MemoryLimit(free, limit, source))
    return found + inherited


def smallest_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The smallest limit on this process's memory, whatever is in use; None: no group limits it."""
    return min(memory_limits(root), default=None, key=lambda limit: limit.limit_bytes)


def cpu_quota(root: Path = Path("/")) -> CpuQuota | None:
    """The smallest CPU quota of this process's groups; None: there is none."""
    found = []
    for folder in _folders("cpu", root):
        quota, _, period = text(folder / "cpu.max").strip().partition(" ")
        name = "cpu.max"
        if not quota:
            quota, period = (text(folder / f"cpu.cfs_{part}_us").strip() for part in ("quota", "period"))
            name = "cpu.cfs_quota_us"
        if quota.isdecimal() and period.isdecimal() and int(period):  # not "max", and not -1
            found.append(CpuQuota(int(quota) / int(period), _name(folder / name, root)))
    return min(found, default=None)


def cpu_count(root: Path = Path("/")) -> int:
    """CPUs for the threads of this process: those that it may run on, but no more than its quota, rounded down.

    One thread more than the quota has time for makes all wait: at each barrier for one that the kernel has paused.
    Rust's available_parallelism and Go's automaxprocs round down too. The kernel has already taken cpusets off the
    CPUs that a process may run on.
    """
    may_run_on = len(os.sched_getaffinity(0))  # fewer than os.cpu_count() in a container, or under Slurm
    quota = cpu_quota(root)
    return may_run_on if quota is None else max(1, min(may_run_on, math.floor(quota.cpus)))


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed because memory ran out: in this process's group, whichever ancestor's
    limit it was, or else on the whole machine since it was started.
    """
    own = list(_folders("memory", root))[:1]
    paths = [folder / file for folder in own for file in ("memory.events", "memory.oom_control")]
    for path in (*paths, root / "proc" / "vmstat"):
        if count := re.search(r"^oom_kill (\d+)$", text(path), re.MULTILINE):
            return int(count[1])
    return None


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The folder of this process's group for the controller, then those of its ancestors; version 1's come first.

    A machine with both versions has each controller in one of them, and no file of it in the other.
    """
    own: dict[str, str] = {}
    for line in text(root / "proc/self/cgroup").split("\n"):  # names may hold what else `splitlines` takes for an end
        _, is_group, rest = line.partition(":")
        names, _, path = rest.partition(":")
        own |= dict.fromkeys(names.split(",") if is_group else (), path)  # version 2 has no names
    for key, point, top in _mounts(controller, root):
        if key in own:
            folder = point / _below(own[key], top)
            yield folder
            while folder != point:
                folder = folder.parent
                yield folder
            if key == controller:
                return


def _mounts(controller: str, root: Path) -> list[tuple[str, Path, str]]:
    """(key of /proc/self/cgroup, mount point, which group that is) for each mount that may have the controller."""
    found = []
    for line in text(root / "proc/self/mountinfo").split("\n"):
        before, found_both, behind = line.partition(" - ")  # between them stand as many fields as the kernel likes
        if not found_both:
            continue
        top, point = before.split(" ")[3:5]
        kind, _, options = behind.split(" ")[:3]
        key = {"cgroup2": "", "cgroup": controller}.get(kind)
        if key == "" or (key and controller in options.split(",")):
            found.append((key, root / _unescaped(point).lstrip("/"), _unescaped(top)))
    return sorted(found, key=lambda mount: mount[0] != controller)


def _below(path: str, top: str) -> str:
    """The group's path from the mount's group on; "" where it is not below that.

    A container may see its group alone, mounted under its own name or as /, and be told a path of the machine's.
    """
    top = top.rstrip("/")
    if ".." in path.split("/") or not f"{path}/".startswith(f"{top}/"):
        return ""
    return path[len(top) :].strip("/")


def _unescaped(path: str) -> str:
    """mountinfo writes spaces and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def _number(path: Path) -> int | None:
    number = text(path).strip()
    return int(number) if number.isdecimal() else None


def _name(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"
