"""The last phase of a rank: it outlives the rank's end by SIGKILL."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench.failure import last_phase
from bench.record.columns import OOM_PHASES
from bench.variables import RUNNER_ID


def test_the_last_phase_outlives_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_phase, "FOLDER", tmp_path)
    for phase in (*OOM_PHASES, ""):
        child = os.fork()
        if not child:
            mark = last_phase.marker("a", 3)
            mark("evaluation")
            mark(phase)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert last_phase.of("a", 3) == (phase or None)
    assert last_phase.of("a", 2) is None


@pytest.mark.parametrize("folder", ["gone", ""])
def test_what_is_left_is_removed_and_without_a_folder_nothing_is_known(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_phase, "FOLDER", tmp_path / folder)
    monkeypatch.setenv(RUNNER_ID, "runner")
    for launch_id in ("a", "b"):
        last_phase.marker(launch_id, 0)("forward")
    assert last_phase.of("a", 0) == (None if folder else "forward")
    last_phase.remove("another")
    last_phase.remove(launch_id="a")
    assert (last_phase.of("a", 0), last_phase.of("b", 0)) == (None, None if folder else "forward")
    last_phase.remove("runner")
    assert list(tmp_path.rglob("*.phase")) == []
