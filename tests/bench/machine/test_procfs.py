"""/proc: what it says about memory, read from planted trees of files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.machine.procfs import data_bytes, meminfo


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
