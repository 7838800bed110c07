"""A group that is set up by hand and does not form, as by variables that are left over: who waits, and what is said."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import planted
import pytest

from bench.errors import UsageError
from bench.training import forming
from bench.variables import LAUNCH_ID


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket at the address where a group of two is said to meet. It answers nobody; close it to free the port."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        for name in (*forming.NAMES, LAUNCH_ID):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(there.getsockname()[1]))
        monkeypatch.setattr(forming, "FORM_S", 0.6)
        monkeypatch.setattr(forming, "SAY_AFTER_S", 0.2)
        yield there


@pytest.mark.parametrize(
    ("rank", "listens", "said"),
    [
        ("0", False, "only 1 came to 127.0.0.1:{port} within 0.6 s"),
        ("1", False, "rank 0 did not answer at 127.0.0.1:{port} within 0.6 s"),
        ("1", True, "rank 0 did not answer at 127.0.0.1:{port} within 0.6 s"),
        ("0", True, "rank 0 cannot use 127.0.0.1:{port} ("),
    ],
    ids=["nobody comes", "nobody is there", "a stranger is there", "the port is taken"],
)
def test_who_comes_to_a_group_that_nobody_forms_is_told_what_is_set(
    rank: str,
    listens: bool,
    said: str,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", rank)
    port = listener.getsockname()[1]
    if not listens:
        listener.close()
    with pytest.raises(UsageError) as raised:
        forming.wait_for_all()
    given = f"RANK={rank} WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT={port}"
    text = str(raised.value)
    assert text.startswith(f"{given} make this process one of 2, but {said.format(port=port)}")
    assert "env -u RANK -u WORLD_SIZE -u MASTER_ADDR -u MASTER_PORT python -m ..." in text
    notes = capsys.readouterr().err
    # At once where it is known at once.
    assert notes == (
        "" if rank == "0" and listens else f"waiting up to 0.6 s for all 2 processes at 127.0.0.1:{port}, by {given}\n"
    )


def test_variables_of_mpi_s_launchers_are_named_too(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    with pytest.raises(UsageError, match=r"^OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 MASTER_ADDR=\S+ \S+ make"):
        forming.wait_for_all()


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "1"}, {LAUNCH_ID: "a"}, {"MASTER_ADDR": ""}])
def test_nobody_waits_who_is_alone_or_has_a_launcher_of_ours(
    variables: dict[str, str], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert forming.wait_for_all() is None


def test_a_trial_whose_group_does_not_form_is_refused(tmp_path: Path) -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    codes = planted.group(1, planted.left_over, tmp_path, 1.0, said=tmp_path, **variables)
    said = planted.refused(planted.Ran(planted.settings(), tmp_path, codes))
    assert "make this process one of 2, but only 1 came to 127.0.0.1:" in said
    assert not (tmp_path / "trials.csv").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_trial_that_waits_for_others_heeds_signals(rank: str, number: int, tmp_path: Path) -> None:
    variables = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}
    codes = planted.group(1, planted.left_over, tmp_path, 3600.0, number, said=tmp_path, **variables)
    ran = planted.Ran(planted.settings(), tmp_path, codes)
    assert codes == [130], ran.said()
    assert f"error: stopped by {signal.Signals(number).name}\n" in ran.said()
