"""Starts the commands that pages show, each up to the point where it would train, measure or read rows.

`python -m tests.started COMMANDS`, a list of words each, as JSON: all in this process, since all that is looked at is
what each ends with. Those that fail are printed, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from unittest import mock

from bench.errors import Ended
from launch import cli as launching
from launch import commands as launch_commands
from launch.gate import commits
from launch.sweep import matrix
from reports import cli as reporting


def trials_then_end(*words: Any) -> NoReturn:
    """The trials that the words ask for, and no more."""
    matrix_trials(*words)
    raise Ended(0)


def what_a_gate_launches(request: commits.GateRequest, *_: str, **__: Any) -> NoReturn:
    """What the gate asks `reports compare`, and then the trials of one side."""
    if commits.compare(request, "--help", stdout=subprocess.DEVNULL):
        raise Ended(2)
    if request.pytest:
        raise Ended(0)
    launching.main(["run", *request.words, "--dry-run"])
    raise Ended(0)


matrix_trials = matrix.trials
END = Ended(0)
# What a command of `python -m launch` calls once its words are read and found to make sense, and what comes instead.
WORK: dict[str, tuple[str, Callable[..., Any] | Ended]] = {
    "bisect": ("launch.commands.bisect.compare", what_a_gate_launches),
    "ceilings": ("launch.commands.ceilings.run_context", END),
    "evaluate": ("launch.commands.evaluate.run", END),
    "fit": ("launch.sweep.fit.largest", END),
    "gate": ("launch.commands.gate.compare", what_a_gate_launches),
    "plan": ("launch.memory.plan.plans", END),
    "sheet": ("launch.sweep.matrix.trials", trials_then_end),
    "slurm": ("launch.cluster.slurm.write", END),
}
LEFT_OUT = {"--dry-run", "--submit"}


def start(words: Sequence[str]) -> NoReturn:
    """Start a command, which ends by SystemExit."""
    program, *rest = words[2:] if words[0] == "python" else words
    name = rest[0]
    of_launch = program == "launch" or (program == "resbench" and name in launch_commands.names())
    if not of_launch or rest[:2] == ["gate", "exact"]:
        with mock.patch(f"reports.commands.{name}.run", side_effect=END):
            reporting.main(rest)
    rest = [word for word in rest if word not in LEFT_OUT]
    with contextlib.ExitStack() as stack:
        if name in WORK and "--help" not in rest:
            place, instead = WORK[name]
            stack.enter_context(mock.patch(place, side_effect=instead))
        launching.main([*rest, "--dry-run"] if name == "run" and "--help" not in rest else rest)
    raise AssertionError(f"{name} did not end")


def main() -> int:
    """Start all of them."""
    failed = 0
    for words in json.loads(sys.argv[1]):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                start(words)
        except SystemExit as ended:
            if ended.code:
                failed = 1
                print(f"{' '.join(words)}: {said.getvalue().strip()}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
