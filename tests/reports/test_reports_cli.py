"""The commands of `python -m reports`: what they cannot do, they say in one sentence, and change nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import is_one_error, python

from bench.record.columns import FILES, columns
from reports import dictionary


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shw"], "no command 'shw'; perhaps you meant show; choose from: across, activations, baseline, columns, "),
        (["show"], "show: the following arguments are required: RUN; see python -m reports show --help"),
        (["show", "a", "b"], "unrecognized arguments: b"),
        (["show", "FOLDER/missing"], "FOLDER/missing/trials.csv"),
        (["show", "FOLDER"], "FOLDER/trials.csv"),
        (["across"], "across: the following arguments are required: RUN; see python -m reports across --help"),
        (["across", "FOLDER"], "FOLDER/trials.csv"),
        (["show", ""], "error: RUN is empty; give the --out folder of a run"),
        (["page", ""], "error: RUN is empty; give the --out folder of a run"),
        (["columns"], "required: FILE.md"),
        (["columns", "FOLDER/missing.md"], "FOLDER/missing.md"),
        (["columns", "FOLDER"], "FOLDER"),
    ],
)
def test_a_wrong_word_is_named(words: list[str], said: str, tmp_path: Path) -> None:
    done = python("-m", "reports", *(word.replace("FOLDER", str(tmp_path)) for word in words))
    assert is_one_error(done), done.stderr
    assert said.replace("FOLDER", str(tmp_path)) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_who_has_read_enough_gets_no_traceback(tmp_path: Path) -> None:
    """As `| head -1` does: the reader is gone before the table is written."""
    (tmp_path / "trials.csv").write_text("launch_id,experiment,status\n" + "a,e,ok\n" * 5000)
    command = [sys.executable, "-m", "reports", "show", str(tmp_path)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


# The dictionary of the columns

BEGIN, END = dictionary.marks("columns")


def test_the_dictionary_has_every_column_once_and_is_a_table() -> None:
    lines = dictionary.markdown().splitlines()
    entries = [line.split("|")[1].strip() for line in lines if line.startswith("| `")]
    assert entries == [f"`{column.name}`" for file in FILES for column in columns(file)]
    assert {line.count("|") for line in lines if line.startswith("|")} == {6}
    assert all(column.text.endswith(".") for file in FILES for column in columns(file))


def test_a_name_that_ends_in_a_unit_is_in_that_unit() -> None:
    units = {
        "flops_per_s": "FLOP/s",
        "bytes_per_s": "bytes/s",
        "_per_s": "images/s",
        "_per_j": "images/J",
        "_bytes": "bytes",
        "_hz": "Hz",
        "_s": "s",
        "_j": "J",
        "_w": "W",
    }
    for column in {column for file in FILES for column in columns(file)}:
        meant = next((unit for end, unit in units.items() if column.name.endswith(end)), column.unit)
        assert (column.name, column.unit) == (column.name, meant)


def test_the_dictionary_goes_between_its_markers_and_touches_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "columns.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        done = python("-m", "reports", "columns", str(path))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert path.read_text() == f"before\n{BEGIN}\n\n{dictionary.markdown()}\n\n{END}\nafter\n"
    assert [found.name for found in tmp_path.iterdir()] == ["columns.md"]


@pytest.mark.parametrize("content", [b"no markers", BEGIN.encode(), END.encode(), b"\xff\xfe\x00binary"])
def test_a_file_without_the_markers_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "columns.md"
    path.write_bytes(content)
    done = python("-m", "reports", "columns", str(path))
    assert is_one_error(done), done.stderr
    assert str(path) in done.stderr
    assert path.read_bytes() == content


def test_who_interrupts_gets_no_traceback_and_no_half_a_page(tmp_path: Path) -> None:
    """While it reads what never ends."""
    (tmp_path / "trials.csv").write_text("launch_id,experiment,status\n" + "a,e,ok\n" * 200_000)
    command = [sys.executable, "-c", INTERRUPTED, "page", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


# Half a second after the command has its imports, it gets a Ctrl-C.
INTERRUPTED = """
import os, signal, sys, threading
import reports.page
from reports.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
main(sys.argv[1:])
"""
