"""Run folders that another program has saved again: what has one meaning is read, all else is named and kept apart."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted_rows import launches, plant, rows_of

from bench.errors import UsageError
from bench.record.run_folder import RunFolder
from launch.sweep import study_folder
from reports import merge
from reports.cli import main
from reports.read import epochs, every_epoch, readable_trials, steps, trials, trials_of_many
from reports.verdicts import arms

FILES = ("trials", "epochs", "steps")


def rewrite(folder: Path, change: Callable[[bytes], bytes]) -> None:
    for path in folder.glob("*.csv"):
        path.write_bytes(change(path.read_bytes()))


def as_pandas(content: bytes) -> bytes:
    """True for true, 16.0 beside empty cells; with the index as a first column."""
    table = pd.read_csv(io.BytesIO(content)).to_csv()
    return pd.read_csv(io.StringIO(table)).to_csv(index=False).encode()


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


def as_spreadsheet(content: bytes, delimiter: str = ";", ending: str = "\r\n") -> bytes:
    """A byte-order mark, TRUE, decimal commas, CRLF, two empty columns and rows, and no end of the last line."""
    found = io.StringIO()
    writer = csv.writer(found, delimiter=delimiter, lineterminator=ending)
    for row in rows(content):
        cells = [cell.upper() if cell in ("true", "false") else cell for cell in row]
        pointed = [cell.replace(".", ",") if is_number(cell) else cell for cell in cells]
        writer.writerow([*(pointed if delimiter == ";" else cells), "", ""])
    empty = delimiter * (len(rows(content)[0]) + 1) + ending
    return ("\ufeff" + found.getvalue() + empty).encode().removesuffix(ending.encode())


def is_number(cell: str) -> bool:
    return cell.count(".") == 1 and cell.replace(".", "").lstrip("-").isdigit()


def quoted(content: bytes) -> bytes:
    found = io.StringIO()
    csv.writer(found, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows(content))
    return found.getvalue().encode()


PROGRAMS: dict[str, Callable[[bytes], bytes]] = {
    "pandas": as_pandas,
    "a spreadsheet with semicolons": as_spreadsheet,
    "a spreadsheet with commas": lambda content: as_spreadsheet(content, ","),
    "whoever quotes all": quoted,
    "whoever writes CRLF": lambda content: content.replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
}
ROWS: list[dict[str, Any]] = [
    {"compile": "default", "head": (512,), "dropout": (0.5,), "lr": 0.025},
    {"tf32": True, "memory_limit_bytes": 2**33, "images_per_s": 205.125375},
]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_what_has_one_meaning_reads_as_it_was_written(program: Callable[[bytes], bytes], tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    launches(tmp_path / "ours", *ROWS)
    for path in (tmp_path / "ours").glob("*.csv"):
        (tmp_path / "theirs" / path.name).write_bytes(path.read_bytes())
    rewrite(tmp_path / "theirs", program)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for read in (readable_trials, epochs, steps):
        (expected, nothing), (found, lost) = read(ours), read(theirs)
        assert (lost.rows, list(lost.cells)) == (nothing.rows, []) == (0, [])
        assert len(expected) > 1
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    texts = [RunFolder(folder).rows("trials") for folder in (ours, theirs)]
    for name in ("trial_key", "repeat", "status", "tf32", "micro_batch", "memory_limit_bytes", "launch_id"):
        assert [row[name] for row in texts[0]] == [row[name] for row in texts[1]]
    before = {path: path.read_bytes() for path in theirs.glob("*.csv")}
    merge.merge([theirs], tmp_path / "merged")  # makes a folder of our form of it
    assert (tmp_path / "merged" / "steps.csv").read_bytes() == (ours / "steps.csv").read_bytes()
    RunFolder(tmp_path / "merged").append("trials", [{"launch_id": "new"}])
    pd.testing.assert_frame_equal(trials(tmp_path / "merged")[:-1], trials(ours))
    assert {path: path.read_bytes() for path in before} == before


def set_cells(folder: Path, file: str, **cells: list[str]) -> None:
    """Put these texts into columns of a file, row by row."""
    path = folder / f"{file}.csv"
    with open(path, newline="") as text:
        found = list(csv.DictReader(text))
    for name, own in cells.items():
        for row, cell in zip(found, own, strict=False):
            row[name] = cell
    with open(path, "w", newline="") as text:
        writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    main(["show", str(folder)])
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_compiled_launches_that_pandas_saved_are_no_eager_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """compile was true or false once."""
    plant(tmp_path, {"images_per_s": 100.0}, {"images_per_s": 300.0})
    set_cells(tmp_path, "trials", compile=["False", "TRUE"])
    out, err = shown(tmp_path, capsys)
    assert err == ""
    assert [(row[1], "300" in row, "100" in row) for row in rows_of(out)] == [
        ("default", True, False),
        ("none", False, True),
    ]


def test_a_setting_that_cannot_be_read_is_named_and_no_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four rows of one trial: two say JA and NEIN, one nothing, and one false."""
    plant(tmp_path, *[{"images_per_s": 100.0 * n} for n in range(1, 5)])
    set_cells(tmp_path, "trials", cudnn_benchmark=["JA", "NEIN", "", "FALSE"])
    out, err = shown(tmp_path, capsys)
    (note,) = err.splitlines()
    assert note.startswith(
        "note: trials.csv, column cudnn_benchmark: 'JA' and others in 2 rows cannot be read; that is"
    )
    lines = rows_of(out)
    assert len(lines) == 3  # empty is false, which was the only way before there was the column
    assert "cudnn_benchmark 'JA'" in " ".join(lines[-1]) or "cudnn_benchmark 'JA'" in out
    assert "cudnn_benchmark 'NEIN'" in out
    for judge in (trials, lambda folder: list(trials_of_many([folder], {"cudnn_benchmark", "launch_id"}))):
        with pytest.raises(
            UsageError, match=r"no verdict on cells .*column cudnn_benchmark: 'JA' and others in 2 rows"
        ):
            judge(tmp_path)
    main(["export", str(tmp_path), "--format", "json"])
    exported = json.loads(capsys.readouterr().out)["rows"]
    assert [row["unreadable"] for row in exported] == ["cudnn_benchmark 'JA'", "cudnn_benchmark 'NEIN'", None, None]
    main(["page", str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert "trials.csv, column cudnn_benchmark: &#39;JA&#39; and others in 2 rows" in page


AMBIGUOUS = {
    "a thousand or a fraction": ("images_per_s", "1,234", "1,234 (a thousand or a fraction?)"),
    "an excel date": ("started_at", "01.02.2026 10:00", None),
    "another date": ("started_at", "2026-01-02 10:00:00", None),
    "an id as a number": ("launch_id", "1.23457E+11", None),
    "an id as pandas' number": ("launch_id", "123456789012.0", None),
    "a key without its first zero": ("trial_key", "12345678901", None),
    "too narrow a cell": ("commit", "########", None),
    "a rounded count": ("peak_allocated_bytes", "1.71799E+11", None),
    "a formula": ("published_differs", "#NAME?", None),
    "a word": ("stop_at_target", "WAHR", None),
    "a list that became a number": ("head", "512.128", None),
}


@pytest.mark.parametrize(("column", "cell", "said"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_is_ambiguous_is_not_read(column: str, cell: str, said: str | None, tmp_path: Path) -> None:
    plant(tmp_path, {}, {})
    set_cells(tmp_path, "trials", **{column: [cell]})
    table, lost = readable_trials(tmp_path)
    assert [str(each) for each in lost.cells] == [
        f"trials.csv, column {column}: {said or cell!r} in 1 row".replace(f": {said} in", f": {said!r} in")
    ]
    assert table[column].isna()[0]
    assert not table[column].isna()[1:].any() or column in ("published_differs", "head", "stop_at_target")
    with pytest.raises(UsageError, match="cannot be read"):
        merge.merge([tmp_path], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_beside_semicolons_a_point_is_ambiguous_too(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text(
        "launch_id;images_per_s;lr;status\na;1.234;0,125;ok\nb;12345,678;1,5;ok\nc;0,125;2.25;ok\n"
    )
    table, lost = readable_trials(tmp_path)
    assert [str(each) for each in lost.cells] == [
        "trials.csv, column images_per_s: '1.234 (a thousand or a fraction?)' in 1 row"
    ]
    assert table["images_per_s"].isna().tolist() == [True, False, False]
    assert table["images_per_s"].tolist()[1:] == [12345.678, 0.125]
    assert table["lr"].tolist() == [0.125, 1.5, 2.25]


def test_an_epoch_that_cannot_be_read_hides_when_the_target_was_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches(tmp_path, {"epochs_trained": 3})
    set_cells(tmp_path, "epochs", eval_accuracy=["###"])
    with pytest.raises(UsageError, match=r"epochs.csv, column eval_accuracy: '###' in 1 row"):
        every_epoch(tmp_path)
    main(["show", str(tmp_path), "--target-accuracy", "0.6"])
    printed = capsys.readouterr()
    assert "epochs.csv, column eval_accuracy: '###' in 1 row cannot be read" in printed.err
    assert "0 of 0" in printed.out


def test_a_step_s_number_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    launches(tmp_path, {})
    set_cells(tmp_path, "steps", cpu_time_s=["", "0,5", "fast", "1E-3"])
    table, lost = steps(tmp_path, ["step_time_s", "cpu_time_s"])
    assert [str(each) for each in lost.cells] == ["steps.csv, column cpu_time_s: 'fast' in 1 row"]
    assert (lost.rows, len(table)) == (1, 39)  # quotes, in a file whose head has none, make a damaged row


def test_no_command_is_told_of_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    plant(tmp_path, {})
    set_cells(tmp_path, "trials", tf32=["JA"])
    main(["page", str(tmp_path)])
    assert "python -m launch run resnet20" not in (tmp_path / "report.html").read_text()


def test_conclusions_leave_such_launches_out(tmp_path: Path) -> None:
    plant(tmp_path, {"accumulate": 1})
    set_cells(tmp_path, "trials", accumulate=["many"])
    from reports.tables import table

    (sheet,) = table.sheets(readable_trials(tmp_path)[0])
    assert arms.conclusions(table.launches(sheet)) == []


# Launch: what it adds to, and what it goes on from

FORMS = {
    "semicolons": (lambda content: as_spreadsheet(content), "another program has saved"),
    "CRLF": (lambda content: content.replace(b"\n", b"\r\n"), "another program has saved"),
    "a byte-order mark": (lambda content: b"\xef\xbb\xbf" + content, "another program has saved"),
    "an index": (as_pandas, "another program has saved"),
    "another table": (lambda content: b"time;value\n1;2\n", "no run wrote"),
}


@pytest.mark.parametrize(("change", "said"), FORMS.values(), ids=FORMS.keys())
def test_no_row_is_added_to_a_form_that_is_not_ours(
    change: Callable[[bytes], bytes], said: str, tmp_path: Path
) -> None:
    launches(tmp_path, {})
    rewrite(tmp_path, change)
    for file in FILES:
        before = (tmp_path / f"{file}.csv").read_bytes()
        with pytest.raises(UsageError, match=said) as caught:
            RunFolder(tmp_path).append(file, [{"launch_id": "new"}])
        assert "\n" not in str(caught.value)
        assert (tmp_path / f"{file}.csv").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_resume_knows_what_has_ended_though_pandas_saved_it(tmp_path: Path) -> None:
    plant(tmp_path, {"repeat": 0}, {"repeat": 1, "status": "interrupted"}, {"repeat": 2, "status": "oom"})
    before = study_folder.finished(study_folder.read_rows(tmp_path), retry_failed=False)
    set_cells(tmp_path, "trials", repeat=["0.0", "1.0", "2.0"])
    assert study_folder.finished(study_folder.read_rows(tmp_path), retry_failed=False) == before
    assert len(before) == 2


@pytest.mark.parametrize(("column", "cell"), [("repeat", "#REF!"), ("status", "###"), ("trial_key", "1.2E+11")])
def test_resume_refuses_what_it_cannot_tell(column: str, cell: str, tmp_path: Path) -> None:
    plant(tmp_path, {})
    set_cells(tmp_path, "trials", **{column: [cell]})
    with pytest.raises(
        UsageError, match=rf"trials.csv, column {column}: '{cell[:1]}.* in 1 row cannot be read; put it"
    ):
        study_folder.read_rows(tmp_path)
