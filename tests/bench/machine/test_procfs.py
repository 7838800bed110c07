"""/proc: what it says about memory, read from planted trees of files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from launching import plant_kernel

from bench.machine.procfs import data_bytes, meminfo, oom_kills


@pytest.mark.parametrize("group", ["/", "/a.slice/b.service"])
def test_the_own_control_group_s_count_comes_before_the_machine_s(group: str, tmp_path: Path) -> None:
    plant_kernel(tmp_path, oom_kills=3, group=group)
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 1\noom_kill 7\n")
    assert oom_kills(tmp_path) == 3


@pytest.mark.parametrize("cgroup", ["0::/gone\n", "4:memory:/a\n", None])
def test_the_machine_s_count_stands_in_where_the_group_has_none(cgroup: str | None, tmp_path: Path) -> None:
    plant_kernel(tmp_path, oom_kills=3)
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 1\noom_kill 7\n")
    path = tmp_path / "proc" / "self" / "cgroup"
    path.write_text(cgroup) if cgroup else path.unlink()
    assert oom_kills(tmp_path) == 7


def test_without_a_count_it_is_unknown(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 1\n")
    assert oom_kills(tmp_path) is None


def test_what_is_in_use_is_the_data_segment(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmData:\t     424 kB\nVmStk:\t 132 kB\n")
    assert data_bytes(status) == 424 * 1024
    status.write_text("Name:\tpython\nState:\tZ (zombie)\n")
    assert data_bytes(status) is None
    assert data_bytes(tmp_path / "gone") is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc")
def test_this_kernel_tells_it_of_this_process() -> None:
    in_use = data_bytes()
    assert in_use is not None
    assert in_use > 2**20


def test_meminfo_is_in_bytes(tmp_path: Path) -> None:
    assert meminfo(tmp_path) == {}
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  8 kB\nHugePages_Total:   0\nNvMapMemUsed:\t2 kB\n")
    assert meminfo(tmp_path) == {"MemTotal": 8192, "NvMapMemUsed": 2048}
