"""Control groups: the limits that a container has, read from copied trees of files of both versions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from house import CHECKOUT, HOUSE
from launching import plant, plant_kernel

from bench.machine import cgroups
from bench.machine.environment import group_limits

GIB, MIB = 2**30, 2**20
NONE_1 = "9223372036854771712\n"  # how version 1 spells that there is no limit
MEMINFO = "MemTotal: 25165824 kB\nMemFree: 1 kB\nMemAvailable: 6406144 kB\nSwapTotal: 0 kB\n"
V2 = "35 24 0:31 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1 = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
V1 += "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
Tree = Mapping[str, str]


def version_2(group: str, limits: Mapping[str, Tree], top: str = "/") -> dict[str, str]:
    """A machine with version 2. `limits`: folder below the mount point -> its files."""
    tree = {"proc/meminfo": MEMINFO, "proc/self/cgroup": f"0::{group}\n"}
    tree["proc/self/mountinfo"] = V2.replace(" / ", f" {top} ", 1)
    for folder, files in limits.items():
        tree |= {f"sys/fs/cgroup{folder}/{name}": f"{text}\n" for name, text in files.items()}
    return tree


def version_1(group: str, limits: Mapping[str, Tree], top: str = "/", more: str = "") -> dict[str, str]:
    """A machine with version 1; files of CPUs and of memory have a hierarchy each."""
    own = f"12:pids:/user\n4:memory:{group}\n3:cpu,cpuacct:{group}\n1:name=systemd:/init.scope\n{more}"
    tree = {"proc/meminfo": MEMINFO, "proc/self/cgroup": own, "proc/self/mountinfo": V1.format(top=top)}
    for folder, files in limits.items():
        for name, text in files.items():
            where = "cpu,cpuacct" if name.startswith("cpu.") else "memory"
            tree[f"sys/fs/cgroup/{where}{folder}/{name}"] = f"{text}\n"
    return tree


def in_use(limit: int | str, used: int, inactive: int = 0) -> dict[str, str]:
    return {
        "memory.max": str(limit),
        "memory.current": str(used),
        "memory.stat": f"anon {used - inactive}\nfile {inactive}\ninactive_file {inactive}",
    }


def in_use_1(limit: int | str, used: int, inactive: int = 0, hierarchical: int | str = NONE_1) -> dict[str, str]:
    stat = f"inactive_file 4096\nhierarchical_memory_limit {str(hierarchical).strip()}\ntotal_inactive_file {inactive}"
    limits = {"memory.limit_in_bytes": str(limit).strip(), "memory.usage_in_bytes": str(used)}
    return {**limits, "memory.stat": stat}


CONTAINER = int(1.3 * GIB)
FREE: dict[str, tuple[dict[str, str], int, str]] = {
    "version 2, no limit": (version_2("/user.slice", {"/user.slice": in_use("max", GIB)}), 6406144 * 1024, "MemAv"),
    "version 2, in a namespace": (
        version_2("/", {"": in_use(CONTAINER, 300 * MIB, 100 * MIB)}),
        CONTAINER - 200 * MIB,
        "/sys/fs/cgroup/memory.max",
    ),
    "an ancestor is tighter, by what its other children use": (
        version_2("/a.slice/b.scope", {"/a.slice": in_use(4 * GIB, 3 * GIB), "/a.slice/b.scope": in_use(2 * GIB, MIB)}),
        GIB,
        "/sys/fs/cgroup/a.slice/memory.max",
    ),
    "a limit above which the kernel slows down": (
        version_2("/", {"": {**in_use(2 * GIB, MIB), "memory.high": str(GIB)}}),
        GIB - MIB,
        "/sys/fs/cgroup/memory.high",
    ),
    "swap is no memory": (
        version_2("/", {"": {**in_use(GIB, 0), "memory.swap.max": str(8 * GIB), "memory.swap.current": "0"}}),
        GIB,
        "/sys/fs/cgroup/memory.max",
    ),
    "nothing is left": (version_2("/", {"": in_use(GIB, GIB + MIB)}), 0, "/sys/fs/cgroup/memory.max"),
    "the machine has less than the group may take": (version_2("/", {"": in_use(64 * GIB, 0)}), 6406144 * 1024, "MemA"),
    "a path of the machine's, where the group alone is mounted": (
        version_2("/pod/a", {"": in_use(GIB, 0)}, top="/pod/a"),
        GIB,
        "/sys/fs/cgroup/memory.max",
    ),
    "a path outside the mount": (version_2("/../b", {"": in_use(GIB, 0)}), GIB, "/sys/fs/cgroup/memory.max"),
    "another's path": (version_2("/pod/good/a", {"": in_use(GIB, 0)}, "/pod/bad/a"), GIB, "/sys/fs/cgroup/memory.max"),
    "a name that another begins with": (
        version_2("/pods/a", {"": in_use(GIB, 0), "s/a": in_use(MIB, 0)}, "/pod"),
        GIB,
        "/sys/fs/cgroup/memory.max",
    ),
    "version 1, no limit": (version_1("/a", {"/a": in_use_1(NONE_1, GIB)}), 6406144 * 1024, "MemAvailable"),
    "version 1, the container's own mount": (
        version_1("/docker/f00", {"": in_use_1(CONTAINER, 300 * MIB, 100 * MIB)}, top="/docker/f00"),
        CONTAINER - 200 * MIB,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ),
    "version 1, an ancestor": (
        version_1("/a/b", {"/a": in_use_1(GIB, 0), "/a/b": in_use_1(NONE_1, 0)}),
        GIB,
        "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
    ),
    "version 1, an ancestor that cannot be seen": (
        version_1("/p/c", {"": in_use_1(2 * GIB, 100 * MIB, hierarchical=GIB)}, top="/p/c"),
        GIB - 100 * MIB,
        "hierarchical_memory_limit in /sys/fs/cgroup/memory",
    ),
    "version 1, memory and swap together, of which much is swapped out": (
        version_1(
            "/a",
            {
                "/a": {
                    **in_use_1(2 * GIB, 512 * MIB),
                    "memory.memsw.limit_in_bytes": str(2 * GIB),
                    "memory.memsw.usage_in_bytes": str(GIB),
                }
            },
        ),
        GIB,
        "/sys/fs/cgroup/memory/a/memory.memsw.limit_in_bytes",
    ),
}


@pytest.mark.parametrize("case", FREE)
def test_free_is_what_the_tightest_group_leaves(case: str, tmp_path: Path) -> None:
    tree, free, source = FREE[case]
    found = cgroups.free_memory(plant(tmp_path, tree))
    assert found is not None
    assert (found.free_bytes, found.source[: len(source)]) == (free, source)
    assert found.source.startswith("MemAvailable") is ("MemAvailable" in found.explain())


def test_a_machine_with_both_versions_has_memory_in_one(tmp_path: Path) -> None:
    """As systemd's hybrid layout: version 2 is there for systemd alone."""
    tree = version_1("/a", {"/a": in_use_1(GIB, 0)}, more="0::/system.slice\n")
    tree["proc/self/mountinfo"] += V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    plant(tmp_path, tree | {"sys/fs/cgroup/unified/system.slice/cgroup.procs": ""})
    found = cgroups.smallest_limit(tmp_path)
    assert found == (GIB, GIB, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes")
    assert found.explain() == "control group, 1.00 GiB by /sys/fs/cgroup/memory/a/memory.limit_in_bytes"


@pytest.mark.parametrize("name", ["the groups", "the\u2028groups", "the\x0bgroups"])
def test_a_mount_point_of_any_name_is_found(name: str, tmp_path: Path) -> None:
    tree = {f"mnt/{name}/{file}": text for file, text in in_use(GIB, 0).items()}
    mount = V2.replace("/sys/fs/cgroup", f"/mnt/{name}".replace(" ", r"\040"))
    tree |= {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mount}
    found = cgroups.smallest_limit(plant(tmp_path, tree))
    assert found is not None
    assert found.source == f"/mnt/{name}/memory.max"


def test_where_the_kernel_tells_nothing_nothing_is_known(tmp_path: Path) -> None:
    assert cgroups.free_memory(tmp_path) is cgroups.smallest_limit(tmp_path) is cgroups.cpu_quota(tmp_path) is None
    assert cgroups.oom_kills(tmp_path) is None


# CPUs


@pytest.mark.parametrize(
    ("tree", "cpus", "threads"),
    [
        (version_2("/", {"": {"cpu.max": "max 100000"}}), None, 8),
        (version_2("/", {"": {"cpu.max": "150000 100000"}}), 1.5, 1),
        (version_2("/", {"": {"cpu.max": "250000 100000"}}), 2.5, 2),
        (version_2("/", {"": {"cpu.max": "20000 100000"}}), 0.2, 1),
        (version_2("/", {"": {"cpu.max": "6400000 100000"}}), 64.0, 8),
        (version_2("/a/b", {"/a": {"cpu.max": "300000 100000"}, "/a/b": {"cpu.max": "max 100000"}}), 3.0, 3),
        (version_1("/a", {"/a": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}}), None, 8),
        (version_1("/x", {"": {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "50000"}}, "/x"), 4.0, 4),
    ],
)
def test_a_quota_is_whole_cpus_for_threads(
    tree: Tree, cpus: float | None, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    plant(tmp_path, tree)
    quota = cgroups.cpu_quota(tmp_path)
    assert (quota and quota.cpus) == cpus
    assert cgroups.cpu_count(tmp_path) == threads


def test_where_a_process_may_run_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity, and with it a cpuset, which the kernel has taken off it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    plant(tmp_path, version_2("/", {"": {"cpu.max": "400000 100000"}}))
    assert cgroups.cpu_count(tmp_path) == 1


def test_limits_make_another_environment_and_none_leaves_it_as_it_was(tmp_path: Path) -> None:
    plant(tmp_path, version_2("/", {"": {**in_use(CONTAINER, 0), "cpu.max": "150000 100000"}}))
    assert group_limits(tmp_path) == {"group_memory_bytes": CONTAINER, "group_cpus": 1.5}
    assert group_limits(tmp_path / "none") == {}


def test_whoever_asks_for_memory_or_cpus_asks_here() -> None:
    """Others would take the machine's figures for a container's."""
    asks = re.compile(r"MemAvailable|virtual_memory\(|os\.cpu_count|sched_getaffinity|multiprocessing\.cpu_count")
    files = [path for folder in HOUSE for path in (CHECKOUT / folder).rglob("*.py")]
    found = {str(path.relative_to(CHECKOUT)) for path in files if asks.search(path.read_text())}
    # Of a Jetson's memory, what the whole machine uses is meant.
    found -= {"bench/machine/cgroups.py", "bench/machine/procfs.py", "bench/machine/tegra.py"}
    # Where there is no /proc, and in what is said of it.
    assert found == {"bench/data/pipeline.py", "launch/memory/devices.py", "launch/commands/env.py"}


# Kills


@pytest.mark.parametrize("group", ["/", "/a.slice/b.service"])
def test_the_own_group_s_count_comes_before_the_machine_s(group: str, tmp_path: Path) -> None:
    plant_kernel(tmp_path, oom_kills=3, group=group)
    plant(tmp_path, {"proc/vmstat": "nr_free_pages 1\noom_kill 7\n"})
    assert cgroups.oom_kills(tmp_path) == 3


def test_version_1_counts_in_the_own_group_too(tmp_path: Path) -> None:
    """Where the machine's count would take a neighbour's kill for the trial's."""
    control = {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2"}
    plant(tmp_path, version_1("/a", {"/a": control}) | {"proc/vmstat": "oom_kill 7\n"})
    assert cgroups.oom_kills(tmp_path) == 2


@pytest.mark.parametrize("cgroup", ["0::/gone\n", "4:memory:/a\n", None])
def test_the_machine_s_count_stands_in_where_the_group_has_none(cgroup: str | None, tmp_path: Path) -> None:
    plant_kernel(tmp_path, oom_kills=3)
    plant(tmp_path, {"proc/vmstat": "nr_free_pages 1\noom_kill 7\n"})
    path = tmp_path / "proc" / "self" / "cgroup"
    path.write_text(cgroup) if cgroup else path.unlink()
    assert cgroups.oom_kills(tmp_path) == 7


def test_without_a_count_it_is_unknown(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/vmstat": "nr_free_pages 1\n"})
    assert cgroups.oom_kills(tmp_path) is None
