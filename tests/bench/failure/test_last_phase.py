"""The last phase of a rank: it outlives the rank's end by SIGKILL."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bench.failure import last_phase
from bench.record.columns import OOM_PHASES


def test_the_last_phase_outlives_its_process(tmp_path: Path) -> None:
    for phase in (*OOM_PHASES, ""):
        child = os.fork()
        if not child:
            mark = last_phase.marker(tmp_path, "a", 3)
            mark("evaluation")
            mark(phase)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert last_phase.of(tmp_path, "a", 3) == (phase or None)
    assert last_phase.of(tmp_path, "a", 2) is None


def test_where_there_is_no_room_for_it_it_is_not_known(tmp_path: Path) -> None:
    last_phase.marker(tmp_path / "gone", "a", 0)("forward")
    assert last_phase.of(tmp_path / "gone", "a", 0) is None
