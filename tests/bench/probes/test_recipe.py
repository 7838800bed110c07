"""The probe in the docstring of its folder is whole: with that one file, trials have its column and tables show it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from launching import SMALL, python

import bench.probes
from bench.record.run_folder import RunFolder

# A version of ours that has one probe more.
RUN = """
import runpy
import sys
import bench.probes
bench.probes.__path__.append(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def recipe() -> str:
    """The docstring's indented lines, of which it says that they are a file."""
    lines = (bench.probes.__doc__ or "").partition("of the swap in use:\n")[2].partition("\nFrom then on")[0]
    return textwrap.dedent(lines)


def test_the_probe_of_the_docstring_is_measured_and_shown(tmp_path: Path) -> None:
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "swap.py").write_text(recipe())
    with_probe = ["-c", RUN, str(tmp_path / "probes")]
    trial = ["bench.experiments.resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "1", "--no-checkpoint"]
    done = python(*with_probe, *trial, "--out", str(tmp_path / "run"), env={"ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 0, done.stderr
    (row,) = RunFolder(tmp_path / "run").rows("trials")
    assert int(row["peak_swap_bytes"]) >= 0
    shown = python(*with_probe, "reports", "show", str(tmp_path / "run"))
    (cells,) = [line.split() for line in shown.stdout.splitlines() if line.startswith(" 16x1 ")]
    head = next(line for line in shown.stdout.splitlines() if line.startswith(" arm"))
    assert head.rstrip().endswith("swap GiB")
    assert cells[-1] == f"{int(row['peak_swap_bytes']) / 2**30:.2f}"
    page = python(*with_probe, "reports", "page", str(tmp_path / "run"))
    assert page.returncode == 0, page.stderr
    assert ">swap GiB</th>" in (tmp_path / "run" / "report.html").read_text()
