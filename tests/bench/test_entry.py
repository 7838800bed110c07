"""How a command ends, whatever ends it: exit code 1 is a verdict, and what nobody foresaw never looks like one."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT
from launching import is_one_error, python
from planted_rows import counted, plant, times

from bench.errors import Ended, UsageError, one_sentence
from launch.gate import commits
from launch.gate.request import GateRequest, read

LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UMLAUTS = "größe"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of which `worse` is slower by far, and a run whose operations were counted."""
    folder = tmp_path_factory.mktemp("runs")
    for name, mean in (("base", 0.0123), ("worse", 0.02)):
        (folder / name).mkdir()
        plant(folder / name, *[{"launch_id": f"{name}{number}", **row} for number, row in enumerate(times(mean))])
    counted(folder / "counted")
    return folder


def broken(folder: Path, package: str, code: str) -> dict[str, str]:
    """Variables with which every Python has this package in the place of the real one."""
    (folder / f"{package}.py").write_text(f"{code}\n")
    return {"PYTHONPATH": str(folder), "TMPDIR": str(folder)}


def unforeseen(done: subprocess.CompletedProcess[str], folder: Path, what: str) -> None:
    """Check that it ended with 70 and one sentence, which names the file of the traceback."""
    assert (done.returncode, done.stdout) == (70, ""), done.stderr
    found = re.fullmatch(r"error: nobody foresaw this: (.*); its traceback is in (\S+)\n", done.stderr)
    assert found, done.stderr
    assert found[1] == what
    assert Path(found[2]).parent == folder
    text = Path(found[2]).read_text()
    assert text.startswith("$ ")
    assert "Traceback (most recent call last)" in text
    assert what in text


COMPARE = ["-m", "reports", "compare", "RUNS/base", "RUNS/worse"]
GATE = ["-m", "launch", "gate", "HEAD", "HEAD", "resnet20_accumulation", "--out", "RUNS/gate"]


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("pandas", COMPARE),
        ("pandas", ["-m", "reports", "gate", "exact", "RUNS/counted", "RUNS/no.csv"]),
        ("pandas", ["-m", "reports", "baseline", "show", "RUNS/base", "--to", "RUNS/baselines"]),
        ("rich", ["-m", "reports", "--help"]),
        ("tyro", GATE),
        ("psutil", GATE),  # which breaks the `reports compare` that it starts
        ("psutil", ["-m", "launch", "bisect", "HEAD^", "HEAD", "resnet20_accumulation", "--out", "RUNS/bisect"]),
        ("torch", ["-m", "bench.activations", "a", "b", "--out", "RUNS/c"]),
        ("torch", ["-m", "bench.experiments.resnet20_accumulation", "--arm", "16x1", "--out", "RUNS/d"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[1:4]),
)
def test_a_broken_package_is_no_verdict(package: str, words: list[str], runs: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in runs.iterdir())
    done = python(*(word.replace("RUNS", str(runs)) for word in words), env=broken(tmp_path, package, "1 / 0"))
    unforeseen(done, tmp_path, "ZeroDivisionError: division by zero")
    assert sorted(path.name for path in runs.iterdir()) == before


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "raise SystemExit('not installed')", "import no_such_module"])
def test_a_package_that_exits_or_is_missing_gives_no_verdict(code: str, runs: Path, tmp_path: Path) -> None:
    words = [word.replace("RUNS", str(runs)) for word in COMPARE]
    done = python(*words, env=broken(tmp_path, "pandas", code))
    said = {"1": "SystemExit: 1", "d": "SystemExit: not installed"}.get(code.rstrip("')")[-1])
    unforeseen(done, tmp_path, said or "ModuleNotFoundError: No module named 'no_such_module'")


def shell(script: str, runs: Path, tmp_path: Path) -> tuple[int, str]:
    """(exit code, stderr) of a script in which COMPARE is the command that finds something worse."""
    command = " ".join([sys.executable, *COMPARE]).replace("RUNS", str(runs))
    script = script.replace("COMPARE", command)
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("script", ["COMPARE", "COMPARE >&-", "COMPARE | true", "COMPARE 2>/dev/full", "COMPARE 2>&-"])
def test_a_verdict_stands_though_nobody_reads_it(script: str, runs: Path, tmp_path: Path) -> None:
    assert shell(script, runs, tmp_path) == (1, "")


def test_who_has_read_enough_is_told_of_no_failed_trial(runs: Path, tmp_path: Path) -> None:
    assert shell(f"{sys.executable} -m launch list | true", runs, tmp_path) == (0, "")


@pytest.mark.parametrize("command", ["COMPARE", f"{sys.executable} -m launch --help"])
def test_a_full_disk_under_standard_output_is_no_verdict(command: str, runs: Path, tmp_path: Path) -> None:
    code, said = shell(f"{command} >/dev/full", runs, tmp_path)
    unforeseen(subprocess.CompletedProcess([], code, "", said), tmp_path, "OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", ">/dev/full 2>&-"])
def test_a_wrong_request_is_one_though_nothing_can_be_said(streams: str, runs: Path, tmp_path: Path) -> None:
    assert shell(f"COMPARE --no-such-option {streams}", runs, tmp_path) == (2, "")


def test_closed_streams_are_no_place_for_a_file(tmp_path: Path) -> None:
    """A file opened next would get the number of standard output, and with it what every process prints."""
    code = f"""
import subprocess
from bench.entry import guarded
with guarded():
    with open({str(tmp_path / "rows.csv")!r}, "w") as file:
        print(file.fileno() > 2, file=file, flush=True)
        print("lost")
        subprocess.run(["echo", "lost"], check=True)
"""
    script = f'"{sys.executable}" -c "$CODE" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", script], cwd=CHECKOUT, env={**os.environ, "CODE": code}, check=True)
    assert (tmp_path / "rows.csv").read_text() == "True\n"


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Ended(1), 1, ""),
        (SystemExit(0), 0, ""),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (UsageError("no such run"), 2, "error: no such run\n"),
        (SystemExit(1), 70, None),
        (MemoryError(), 70, None),
    ],
    ids=repr,
)
def test_what_ends_a_command_has_its_code(
    error: BaseException,
    code: int,
    said: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended, one_sentence():
        fail(error)
    assert ended.value.code == code
    printed = capsys.readouterr().err
    assert (
        printed == said
        if said is not None
        else printed.startswith(f"error: nobody foresaw this: {type(error).__name__}")
    )


@pytest.mark.parametrize(
    ("number", "below", "code"),
    [
        (errno.EACCES, "theirs/run/trials.csv", 2),
        (errno.ENAMETOOLONG, "theirs", 2),
        (errno.EACCES, "theirs2/trials.csv", 70),  # no path of the command
        (errno.EIO, "theirs/run", 70),
    ],
)
def test_a_path_of_the_command_that_may_not_be_entered_is_a_wrong_request(
    number: int,
    below: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["reports", "", "show", str(tmp_path / "theirs")])
    with pytest.raises(SystemExit) as ended, one_sentence():
        raise OSError(number, os.strerror(number), str(tmp_path / below))
    assert ended.value.code == code
    said = f"error: cannot use {tmp_path / below}: {os.strerror(number)}; check the path and whose it is\n"
    assert (capsys.readouterr().err == said) is (code == 2)
    assert len(list(tmp_path.iterdir())) == (code == 70)  # the traceback


@pytest.mark.parametrize("in_log", [False, True])
def test_where_no_file_can_be_written_the_traceback_is_printed(
    in_log: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And into a log it belongs."""
    monkeypatch.setattr(tempfile, "mkstemp", lambda **how: fail(OSError("no room")))
    with pytest.raises(SystemExit) as ended, one_sentence(in_log):
        fail(ValueError("two\nlines"))
    assert ended.value.code == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: nobody foresaw this: ValueError: two lines; its traceback stands above"


def judged(runs: Path, tmp_path: Path) -> Callable[[], int]:
    """The gate's verdict on two runs, which finds the second one worse."""
    for name, source in (("base", "base"), ("head", "worse")):
        (tmp_path / name).symlink_to(runs / source)
    request: GateRequest = read(["HEAD", "HEAD", "resnet20_accumulation", "--out", str(tmp_path)])
    return lambda: commits.verdict(request, 1.0, 0.0, True)


def test_a_gate_whose_compare_breaks_has_no_verdict(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    verdict = judged(runs, tmp_path)
    assert verdict() == 1
    capfd.readouterr()
    for name, value in broken(tmp_path, "scipy", "1 / 0").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Ended) as ended:
        verdict()
    unforeseen(
        subprocess.CompletedProcess([], int(str(ended.value.code)), *capfd.readouterr()),
        tmp_path,
        "ZeroDivisionError: division by zero",
    )


def test_a_gate_whose_compare_is_killed_has_no_verdict(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = judged(runs, tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **how: subprocess.CompletedProcess([], -9))
    with pytest.raises(Ended) as ended:
        verdict()
    assert ended.value.code == 70
    assert capsys.readouterr().err == "error: reports compare was killed by SIGKILL; if not by you, see dmesg\n"


@pytest.mark.parametrize(("share", "before", "last"), [(0.25, 0.0, False), (1.0, 0.5, True)])
def test_a_look_that_decides_writes_the_step_summary_once(
    share: float, before: float, last: bool, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though before the last look compare runs twice: first to see whether it decides."""
    judged(runs, tmp_path)
    (tmp_path / "summary").write_text("")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    words = ["--out", str(tmp_path), "--markdown", str(tmp_path / "summary")]
    request = read(["HEAD", "HEAD", "resnet20_accumulation", *words])
    assert commits.verdict(request, share, before, last) == 1
    assert (tmp_path / "summary").read_text().count("## Something got worse") == 1


# Text


@pytest.mark.parametrize("words", [["launch", "list"], ["launch", "env"], ["reports", "show", "RUNS/base"]])
def test_what_standard_output_cannot_encode_is_escaped(words: list[str], runs: Path) -> None:
    done = python("-m", *(word.replace("RUNS", str(runs)) for word in words), env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert len(done.stdout.splitlines()) > 5


def test_in_another_locale_files_and_their_names_are_utf8(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / UMLAUTS
    folder.mkdir()
    for path in (runs / "base").glob("*.csv"):
        (folder / path.name).write_bytes(path.read_bytes())
    page = folder / "seite.html"
    done = python("-m", "reports", "page", str(folder), "-o", str(page), env=LOCALE)
    assert (done.returncode, done.stderr) == (0, "")
    assert UMLAUTS in page.read_text(encoding="utf-8")
    assert UMLAUTS in done.stdout


def test_an_error_names_a_folder_as_it_is_called_in_any_locale(tmp_path: Path) -> None:
    done = python("-m", "reports", "show", str(tmp_path / UMLAUTS), env=LOCALE)
    assert is_one_error(done), done.stderr
    assert UMLAUTS in done.stderr
