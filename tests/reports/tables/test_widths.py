"""At 80 columns every table fits, with what matters most; at 200 all of that is there; what is left out is counted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_rows import launches, plant, times

from bench.errors import Ended
from bench.terminal import plain
from reports import read
from reports.cli import main
from reports.tables import table

CPU: dict[str, Any] = {
    "device_name": "cpu",
    "device_count": 0,
    "peak_allocated_bytes": None,
    "peak_reserved_bytes": None,
}
PUBLISHED: dict[str, Any] = {"published_eval_accuracy": 0.9, "published_where": "a source", "published_differs": "x=1"}


def named(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{**row, "launch_id": f"{name}{number}"} for number, row in enumerate(rows)]


def one(folder: Path) -> list[str]:
    plant(folder, {**CPU, **PUBLISHED, "processes": 2, "energy_per_image_j": 0.1})
    return ["show", str(folder)]


def with_spread(folder: Path) -> list[str]:
    plant(folder, *times(**PUBLISHED))
    return ["show", str(folder)]


def of_settings(folder: Path) -> list[str]:
    several = [{"micro_batch": batch, "precision": p, "lr": 0.1 * batch} for batch in (4, 16) for p in ("no", "bf16")]
    plant(folder, *several, {"status": "crashed", "error": "word " * 60, "images_per_s": None})
    return ["show", str(folder)]


def of_targets(folder: Path) -> list[str]:
    reached = {"epochs_to_target": 3, "time_to_target_s": 183.0, "images_to_target": 150_000}
    launches(folder, *({"seed": seed, "target_accuracy": 0.6, **reached} for seed in range(3)))
    return ["show", str(folder)]


def comparison(folder: Path) -> list[str]:
    for name, mean in (("base", 0.0123), ("head", 0.0131)):
        (folder / name).mkdir()
        plant(folder / name, *named([*times(mean), *times(mean, arm="alone", trial_key="k")[:1]], name))
    return ["compare", str(folder / "base"), str(folder / "head")]


def machines(folder: Path) -> list[str]:
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 3090"):
        (folder / name).mkdir()
        plant(folder / name, *named(times(device_name=name), name))
    return ["across", *map(str, folder.iterdir())]


KINDS = (one, with_spread, of_settings, of_targets, comparison, machines)
Kind = Callable[[Path], list[str]]


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints; `compare` ends with an exit code."""
    with contextlib.suppress(Ended):
        main(words)
    done = capsys.readouterr()
    assert done.err == ""
    return done.out


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", KINDS)
def test_no_line_is_wider_than_the_terminal(
    kind: Kind, width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = printed(kind(tmp_path), capsys)
    assert "…" not in text
    assert [line for line in text.splitlines() if len(line) > width] == []


def first_row(text: str) -> str:
    """The first row of the first table."""
    return text.partition("─ \n")[2].splitlines()[0]


def heads(text: str) -> int:
    """How many columns the first table has, of which each has a cell in the first row."""
    return len(re.split(r" {2,}", first_row(text).strip()))


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_line_says_how_many_are_left_out(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = one(tmp_path)
    whole = heads(printed(words, capsys))
    monkeypatch.setenv("COLUMNS", str(width))
    text = printed(words, capsys)
    said = rf"left out at a width of {width}: (\d+) of (\d+) columns; --wide prints all"
    out = re.search(said, " ".join(text.split()))
    assert out
    assert (int(out[2]), int(out[1])) == (whole, whole - heads(text))
    assert heads(printed([*words, "--wide"], capsys)) == whole


def test_what_matters_most_fits_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = first_row(printed(one(tmp_path), capsys))
    assert row.split()[2:] == ["ok", "12346", "12.35", "61.23", "0.50", "91.1", "-", "/", "90.0"]


@pytest.mark.parametrize("kind", [one, with_spread])
def test_at_two_hundred_columns_all_that_matters_is_there(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = kind(tmp_path)
    (sheet,) = table.sheets(read.trials(tmp_path))
    wanted = [index for index, head in enumerate(sheet.heads) if plain(head) in table.IMPORTANT[:10]]
    assert len(wanted) > 5
    monkeypatch.setenv("COLUMNS", "200")
    row = first_row(printed(words, capsys))
    assert [sheet.lines[0][index] for index in wanted if f" {sheet.lines[0][index]} " not in row] == []


def test_every_important_column_is_one(tmp_path: Path) -> None:
    """A heading that no table has would be a slip."""
    from reports.across.measures import MEASURES
    from reports.tables.figures import ALWAYS, OF_SEVERAL_PROCESSES

    known = {plain(figure.heading) for figure in (*ALWAYS, *OF_SEVERAL_PROCESSES)}
    assert set(table.IMPORTANT) <= known | {plain(measure.shown.heading) for measure in MEASURES}


def test_a_comparison_keeps_changes_and_intervals_at_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = comparison(tmp_path)
    whole = printed(words, capsys)
    changes = re.findall(r"[+-]\d+\.\d+% ", whole)
    intervals = re.findall(r"[+-]\d+\.\d+ \.\. [+-]\d+\.\d+", whole)
    assert len(changes) == len(intervals) > 5
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(words, capsys)
    assert re.findall(r"[+-]\d+\.\d+% ", text) == changes
    assert re.findall(r"[+-]\d+\.\d+ \.\. [+-]\d+\.\d+", text) == intervals
    assert text.count("1 and 1 launches have no spread") == 1


def test_where_shows_the_trials_with_a_value_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = of_settings(tmp_path)
    text = printed([*words, "--where", "precision=bf16", "micro-batch=16"], capsys)
    assert [line.split()[:2] for line in text.splitlines() if line.startswith(" 16x8")] == [["16x8", "ok"]]
    assert "precision bf16" in text


@pytest.mark.parametrize("condition", ["validation=0", "validation=0.00", "eval_batch=none", "tf32=FALSE"])
def test_where_compares_values_and_not_their_words(
    condition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = of_settings(tmp_path)
    assert printed([*words, "--where", condition], capsys) == printed(words, capsys)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("eval_batch=16.0", "has eval_batch=16.0; there is None"),
        ("precison=bf16", "no column 'precison'"),
        ("precision=fp8", "has precision=fp8; there is no, bf16"),
        ("precision", "'precision' is not COLUMN=VALUE"),
    ],
)
def test_a_condition_that_cannot_be_met_is_one_sentence(
    condition: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = of_settings(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*words, "--where", condition])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert len(error.splitlines()) == 1
