"""Every command of README, and `make demo`, can be run as written on a machine with no GPU, with one, two and eight."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import python, two_gpus, with_variables

GPUS = ("0", "1", "2", "8")
# Runs them in one process: all that is looked at is what each ends with.
ALL_OF_THEM = """
import contextlib, io, json, sys
from launch.cli import main
for words in json.loads(sys.argv[1]):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main(words)
"""


def commands(gpus: int) -> list[list[str]]:
    """What README has behind `python -m launch`, of that what can be asked without running it."""
    blocks = re.findall(r"^```\n(.*?)^```", (CHECKOUT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True)[3:] for line in lines if line.startswith("python -m launch run ")]
    assert len(found) > 10
    # One with several machines says itself how many processes each has.
    alone = [words for words in found if "--machines" not in words or gpus in (0, 8)]
    return [[*words, *(["--dry-run"] if "--dry-run" not in words else [])] for words in alone]


@pytest.mark.parametrize("gpus", GPUS)
def test_every_run_of_the_readme_can_be_started(standin_nvml: Path, gpus: str) -> None:
    env = two_gpus(standin_nvml, STANDIN_NVML=gpus)
    done = python("-c", ALL_OF_THEM, json.dumps(commands(int(gpus))), env=env)
    assert done.returncode == 0
    # On stderr there is at most what --processes does to the effective batch.
    assert [line for line in done.stderr.splitlines() if not line.startswith("--processes ")] == []


@pytest.mark.parametrize(("gpus", "processes"), zip(GPUS, "2122", strict=True))
def test_the_demo_takes_as_many_processes_as_there_are_gpus_for(
    standin_nvml: Path, gpus: str, processes: str, tmp_path: Path
) -> None:
    here = f"BIN={Path(sys.executable).parent}", f"DEMO={tmp_path}"
    made = subprocess.run(["make", "-n", "demo", *here], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    runs = [line for line in made.stdout.replace("\\\n", " ").splitlines() if "-m launch run" in line]
    assert len({run.partition("--processes ")[2].partition(" --precision")[0] for run in runs}) == 1
    env = with_variables({**two_gpus(standin_nvml, STANDIN_NVML=gpus), "PYTHONDONTWRITEBYTECODE": "1"})
    first = runs[0].replace(">/dev/null", "--dry-run")
    done = subprocess.run(["sh", "-c", first], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"--num_processes (\d)", done.stdout)) == {processes}
    assert os.listdir(tmp_path) == []
