"""The processes of both sides: none is left, and none waits for ever, whatever becomes of the other or of the gate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import CHECKOUT
from launching import alive, having, until, with_variables

from bench.errors import UsageError
from bench.failure.causes import Interrupted
from launch.gate import sides
from launch.gate.sides import Side
from launch.interrupts import handling, interrupt

SLEEP = "import time; time.sleep(60)"
MATCHES = """
from bench.instruments.turns import TurnsEnded, from_environment
for number in range({matches}):
    turns = from_environment()
    try:
        turns.begin("x", str(number))
        turns.leave()
    except TurnsEnded as error:
        print(error)
        raise SystemExit(1)
"""


def side(folder: Path, name: str, code: str) -> Side:
    return Side(name, "", CHECKOUT, folder / name, lambda number: [sys.executable, "-c", code], {})


def test_the_side_that_has_one_more_trial_does_not_wait_for_the_other(tmp_path: Path) -> None:
    both = [side(tmp_path, name, MATCHES.format(matches=count)) for name, count in (("base", 1), ("head", 2))]
    assert sides.in_turns(both, 0) == ([0, 1], "the launch of base takes no more turns")
    assert (both[1].folder / "tables.txt").read_text() == "the launch of base takes no more turns\n"


def test_a_side_that_takes_no_turns_ends_the_other(tmp_path: Path) -> None:
    both = [side(tmp_path, "base", MATCHES.format(matches=1)), side(tmp_path, "head", "")]
    assert sides.in_turns(both, 0) == ([1, 0], "the launch of head takes no more turns")


def test_a_stopped_process_is_ended(tmp_path: Path) -> None:
    base = side(tmp_path, "base", SLEEP)
    process = base.start(0, {})
    process.send_signal(signal.SIGSTOP)
    sides.end([base], [process])
    assert process.returncode == -signal.SIGTERM


def test_one_that_heeds_no_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "PATIENCE_S", 0.1)
    deaf = side(
        tmp_path, "base", f"import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"
    )
    process = deaf.start(0, {})
    until(lambda: "deaf" in (deaf.folder / "tables.txt").read_text(), "the process")
    sides.end([deaf], [process])
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("in_turns", [True, False])
def test_a_signal_while_a_side_is_started_leaves_none(in_turns: bool, tmp_path: Path) -> None:
    def command(number: int) -> list[str]:
        signal.raise_signal(signal.SIGTERM)
        return [sys.executable, "-c", SLEEP]

    one = Side("base", "", CHECKOUT, tmp_path / "base", command, {})
    run = sides.in_turns if in_turns else sides.one_by_one
    with pytest.raises(Interrupted), handling(interrupt):
        run([one], 0)
    assert SLEEP not in [word for child in alive(psutil.Process().children()) for word in child.cmdline()]


def test_what_a_killed_gate_has_started_ends(tmp_path: Path) -> None:
    words = f'[sys.executable, "-c", {SLEEP!r}], {{"LEFT_BY": "{os.getpid()}"}}'
    code = f"""
import sys
from pathlib import Path
from launch.gate import sides
sides.one_by_one([sides.Side("base", "", Path(), Path({str(tmp_path)!r}), lambda number: {words})], 0)
"""
    gate = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, env=with_variables({}))
    until(lambda: having("LEFT_BY", str(os.getpid())), "the side's process")
    gate.kill()
    gate.wait()
    until(lambda: not having("LEFT_BY", str(os.getpid())), "its end", timeout=10)


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file in its place")
    with pytest.raises(UsageError, match=r"cannot write .*base: File exists; choose another --out"):
        sides.one_by_one([side(tmp_path, "base", "")], 0)
