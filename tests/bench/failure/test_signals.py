"""Signals: a process that cannot heed one ends all the same."""

from pathlib import Path

import planted


def test_a_process_that_is_stuck_in_c_ends_and_what_its_children_get_ends_it_not(tmp_path: Path) -> None:
    codes = planted.group(1, planted.stuck, tmp_path, said=tmp_path)
    assert codes == [3], (tmp_path / "rank0.txt").read_text()
    seen = planted.Ran(planted.settings(), tmp_path, codes).seen()
    assert [note["ends"] for note in seen] == ["", "stopped by SIGTERM"]


def test_a_process_whose_end_fails_ends_all_the_same(tmp_path: Path) -> None:
    """The thread that ends a stuck process has nobody to tell, and holds the lock without which nobody else may."""
    codes = planted.group(1, planted.ending_badly, tmp_path, said=tmp_path)
    said = (tmp_path / "rank0.txt").read_text()
    assert codes == [1], said
    assert "ValueError: planted: no row" in said
