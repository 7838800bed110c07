"""What a user sees of a trial under way: a bar on a terminal, and plain lines, true ones, anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from launching import on_a_terminal, python

from bench.record import progress

SHOW = """
import time
from bench.record.progress import Display
state = {"epochs": 2, "windows": 5}
with Display("the title=a[/b]") as display:
    display.show({})
    for window in range(1, 5):
        display.show({**state, "epoch": 0, "window": window, "images_per_s": 12345.6, "train_loss": 2.5})
        time.sleep(0.06)
    display.show({**state, "epoch": 1, "window": WINDOW, "images_per_s": 12000.4, "train_loss": 0.25})
    time.sleep(0.2)
    display.line("the title=a[/b]: [red]ok[/red]")
"""


def test_in_a_pipe_there_is_a_plain_line_for_an_epoch() -> None:
    done = python("-c", SHOW.replace("WINDOW", "0"))
    assert done.stderr.splitlines() == [
        "the title=a[/b]: epoch 1/2 12000 images/s loss 0.250",
        "the title=a[/b]: [red]ok[/red]",
    ]


def test_a_line_about_an_epoch_holds_no_figures_of_the_next() -> None:
    done = python("-c", SHOW.replace("WINDOW", "3"))
    assert done.stderr.splitlines() == ["the title=a[/b]: epoch 1/2", "the title=a[/b]: [red]ok[/red]"]


def test_on_a_terminal_there_is_a_bar_with_rate_loss_and_time_left() -> None:
    text = on_a_terminal(SHOW.replace("WINDOW", "0"))
    assert "\x1b[" in text
    assert "━" in text
    for part in ("the title=a[/b]", "epoch 1/2", "epoch 2/2", "12346 images/s", "loss 2.500", "loss 0.250", "0:00:0"):
        assert part in text
    assert "the title=a[/b]: [red]ok[/red]" in text


def test_what_rank_0_tells_is_what_the_launcher_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.progress"
    assert progress.read(path) == {}
    monkeypatch.setenv(progress.VARIABLE, str(path))
    state = {"epoch": 1, "epochs": 2, "window": 3, "windows": 5, "images_per_s": 0.5, "train_loss": None}
    with progress.ProgressWriter("the title") as teller:
        for number in range(3):
            teller.publish(state | {"window": number})
            assert progress.read(path) == state | {"window": number}
    assert [found.name for found in tmp_path.iterdir()] == ["x.progress"]
    path.write_text('{"epoch": ')
    assert progress.read(path) == {}


def test_progress_that_cannot_be_told_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "no folder" / "x.progress"))
    with progress.ProgressWriter("the title") as teller:
        teller.publish({"epoch": 0, "epochs": 1, "window": 1, "windows": 1})


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.01234"), (370.44, "370.4"), (1070, "1070"), (98765.4, "98765")]
)
def test_a_rate_is_written_out(value: float, text: str) -> None:
    assert progress.rate(value) == f"{text} images/s"
