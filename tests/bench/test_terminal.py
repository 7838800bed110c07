"""A table is never wider than the terminal. It leaves out whole columns, the least important ones, and counts them."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from bench.terminal import BLANK, WINDOW, Grid, paragraph, print_grid, room

GRID = Grid(
    heads=["arm", "micro_batch", "status", "images/s", "step ms\np50", "epoch s", "eval\nacc %"],
    lines=[
        ["16x8 [1][2]", "16", "ok", "12346 (12000..12777)", "205 (198..213)", "61.23", "91.1"],
        ["as_published_with_a_long_name", "4", "crashed", "", "", "", ""],
    ],
    telling=2,
    important=["status", "eval acc %", "images/s"],
)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("COLUMNS", "60")
    return monkeypatch


@pytest.mark.parametrize("width", range(48, 130))
def test_no_line_is_wider_than_the_room_and_no_figure_is_cut(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_grid(Console(), GRID, more="M")
    found = lines(capsys)
    assert max(map(len, found)) <= width
    text = "\n".join(found)
    out = re.search(rf"left out at a width of {width}: (\d) of 7 columns; M", text)
    whole = [cell for cell in GRID.lines[0][2:] if f" {cell} " in text]
    assert len(whole) == 5 - (int(out[1]) if out else 0)


def test_the_important_columns_stay_in_their_order_from_the_left(
    narrow: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_grid(Console(), GRID)
    first = next(line for line in lines(capsys) if line.startswith(" 16x8"))
    assert first.split() == ["16x8", "[1][2]", "16", "ok", "91.1"]


def test_a_column_by_which_rows_are_told_apart_is_named_if_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    print_grid(Console(), GRID)
    assert "among them micro_batch, in which rows differ" in " ".join(" ".join(lines(capsys)).split())


def test_wide_prints_all(narrow: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    print_grid(Console(), GRID, wide=True)
    found = lines(capsys)
    assert not any("left out" in line for line in found)
    assert "12346 (12000..12777)  205 (198..213)    61.23   91.1" in "\n".join(found)


def test_a_pipe_gets_every_column_in_unbroken_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_grid(Console(), GRID, more=WINDOW)
    paragraph(Console(), "word " * 100)
    *table, text = lines(capsys)
    assert all(head in "\n".join(table) for head in ("micro_batch", "images/s", "epoch s"))
    assert text.split() == ["word"] * 100


@pytest.mark.parametrize("columns", ["", "0", "-5", "many"])
def test_columns_that_is_no_width_is_none(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert room(Console(file=io.StringIO())) is None


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert room(Console(file=io.StringIO(), force_terminal=True, width=77)) == 77


def test_a_paragraph_is_wrapped_between_words_alone(
    narrow: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/a/path/that-is-longer/than-the-room/of-sixty-columns/checkpoints/676a88e03656-0.pt"
    settings = ", ".join(f"lr{BLANK}{number / 10}" for number in range(20))
    paragraph(Console(), f"{settings}, weights {path}, [red]x", "  ")
    found = lines(capsys)
    assert [line for line in found if len(line) > 60] == [f"  {path},"]
    assert all(line.startswith("  ") for line in found)
    assert not any(line.endswith("lr") for line in found)
    assert "[red]x" in found[-1]
