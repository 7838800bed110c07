"""Every command of README can be run as written on a machine with no GPU, with one, two and eight."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import python, two_gpus

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
    assert (done.returncode, done.stderr) == (0, "")
