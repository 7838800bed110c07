"""The files of docs/extending.md are whole: with each in its folder, the suite has what the page says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import SMALL, python

from bench.record.run_folder import RunFolder

# A version of ours that has these files more: words of Python, then what follows `python -m`.
RUN = """
import importlib
import runpy
import sys
from pathlib import Path
top = Path(sys.argv.pop(1))
for path in top.rglob("*.py"):
    folder = path.parent
    package = importlib.import_module(".".join(folder.relative_to(top).parts))
    package.__path__.append(str(folder))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def files() -> dict[str, str]:
    """Path -> content of each file on the page."""
    text = (CHECKOUT / "docs" / "extending.md").read_text()
    return dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, and in `run` a trial that was made with them."""
    folder = tmp_path_factory.mktemp("extended")
    for path, content in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    trial = ["bench.experiments.resnet20_accumulation", "--arm", "16x1", *SMALL, "--epochs", "1", "--no-checkpoint"]
    done = with_files(folder, *trial, "--out", str(folder / "run"))
    assert done.returncode == 0, done.stderr
    return folder


def with_files(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return python("-c", RUN, str(folder), *words, env={"ACCELERATE_USE_CPU": "true", "COLUMNS": "200"})


def test_the_page_has_a_file_of_each_kind() -> None:
    folders = ["bench/experiments", "bench/probes", "reports/charts", "reports/commands"]
    assert [str(Path(path).parent) for path in files()] == folders


def test_the_experiment_is_listed_and_its_trials_can_be_started(extended: Path) -> None:
    assert "learning_rate" in with_files(extended, "launch", "list").stdout
    done = with_files(extended, "launch", "run", "learning_rate", "--dry-run", "--device", "cpu")
    assert (done.returncode, done.stdout.count("bench.experiments.learning_rate --arm")) == (0, 2), done.stderr


def test_what_the_probe_measures_is_recorded_and_shown(extended: Path) -> None:
    (row,) = RunFolder(extended / "run").rows("trials")
    assert int(row["peak_swap_bytes"]) >= 0
    shown = with_files(extended, "reports", "show", str(extended / "run"))
    (cells,) = [line.split() for line in shown.stdout.splitlines() if line.startswith(" 16x1 ")]
    head = next(line for line in shown.stdout.splitlines() if line.startswith(" arm"))
    assert head.rstrip().endswith("swap GiB")
    assert cells[-1] == f"{int(row['peak_swap_bytes']) / 2**30:.2f}"
    page = with_files(extended, "reports", "page", str(extended / "run"), "-o", str(extended / "report.html"))
    assert page.returncode == 0, page.stderr
    assert ">swap GiB</th>" in (extended / "report.html").read_text()


def test_the_chart_is_drawn_of_trials_that_have_its_figures(extended: Path) -> None:
    drawn = with_files(extended, "reports", "plot", str(extended / "run"), "-o", str(extended / "by_hand"))
    assert (drawn.returncode, "startup" in drawn.stdout) == (0, False), "by hand, nothing is known of the start"
    (row,) = RunFolder(extended / "run").rows("trials")
    row.pop("peak_swap_bytes")  # a column that this process has no probe for
    (extended / "started").mkdir()
    RunFolder(extended / "started").append("trials", [row | {"startup_s": "1.25"}])
    drawn = with_files(extended, "reports", "plot", str(extended / "started"), "-o", str(extended / "plots"))
    assert (extended / "plots" / "1_resnet20_accumulation_startup.svg").exists(), drawn.stderr


def test_the_command_says_what_failed(extended: Path) -> None:
    assert with_files(extended, "reports", "failed", str(extended / "run")).returncode == 0
    (trials := extended / "failed" / "trials.csv").parent.mkdir()
    trials.write_text("launch_id,experiment,arm,status,error\na,e,x,crashed,it broke\n")
    done = with_files(extended, "reports", "failed", str(trials.parent))
    assert (done.returncode, done.stdout) == (1, "e x: crashed: it broke\n")
    assert "Print the trials of a run that did not end well" in with_files(extended, "reports", "failed", "-h").stdout
