"""Rules that hold all over the house: text is UTF-8 whatever the locale, and the wall clock times nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import CHECKOUT
from house import HOUSE

FILES = sorted(path for folder in HOUSE for path in (CHECKOUT / folder).rglob("*.py"))
IDS = [str(path.relative_to(CHECKOUT)) for path in FILES]
OPENERS = ("open", "io.open", "os.fdopen")  # with the mode behind the file; a path's own open has it first
OF_BYTES = ("os.open", "Image.open", "tarfile.open")
WALL = re.compile(
    r"time\.time(_ns)?|(datetime\.)?(datetime|date)\.(now|utcnow|today)|.*\.(create_time|st_[acm]time)", re.S
)
RUNNERS = ("subprocess.run", "subprocess.Popen", "subprocess.check_output")


def calls(code: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]


def opens_in_locale(call: ast.Call) -> bool:
    """Whether the call reads or writes text in the encoding of whatever locale it finds."""
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    name = ast.unparse(call.func)
    if "encoding" in words or name in OF_BYTES:
        return False
    if name in RUNNERS:
        return bool({"text", "universal_newlines"} & set(words))
    if name.endswith((".read_text", ".write_text")):
        return True
    if name not in OPENERS and not name.endswith(".open"):
        return False
    modes = call.args[1:2] if name in OPENERS else call.args[:1]
    return "b" not in words.get("mode", ast.unparse(modes[0]) if modes else "")


def times_by_wall_clock(code: str) -> list[str]:
    """Readings of the wall clock that are no time stamps, which are texts of ISO 8601."""
    nodes = list(ast.walk(ast.parse(code)))
    texts = [node.value for node in nodes if isinstance(node, ast.Attribute) and node.attr == "isoformat"]
    stamps = [text.func for text in texts if isinstance(text, ast.Call)]
    read = [node for node in nodes if isinstance(node, ast.Attribute) and WALL.fullmatch(ast.unparse(node))]
    return [ast.unparse(node) for node in read if node not in stamps]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_text_names_its_encoding(path: Path) -> None:
    found = [call for call in calls(path.read_text()) if opens_in_locale(call)]
    assert [f"line {call.lineno}: {ast.unparse(call)}" for call in found] == []


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_the_wall_clock_is_read_for_time_stamps_alone(path: Path) -> None:
    """Durations come from time.monotonic(), which nobody sets, and which the processes of a machine share."""
    assert times_by_wall_clock(path.read_text()) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("open(path, mode='a', newline='')", True),
        ("path.open('w')", True),
        ("path.read_text(errors='replace')", True),
        ("(folder / 'a').write_text(text)", True),
        ("subprocess.run(words, text=True)", True),
        ("open(path, 'rb')", False),
        ("open(path, encoding='utf-8')", False),
        ("path.open('ab', buffering=0)", False),
        ("path.write_text(text, encoding='utf-8')", False),
        ("subprocess.run(words, encoding='utf-8')", False),
        ("os.open(path, os.O_RDONLY)", False),
    ],
)
def test_text_without_an_encoding_is_found(code: str, found: bool) -> None:
    assert opens_in_locale(calls(code)[-1]) is found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("time.time() - began", ["time.time"]),
        ("datetime.datetime.now(utc) - began", ["datetime.datetime.now"]),
        ("datetime.now(timezone.utc).isoformat()", []),
        ("time.monotonic() - began", []),
        ("psutil.Process(pid).create_time()", ["psutil.Process(pid).create_time"]),
        ("now - path.stat().st_mtime", ["path.stat().st_mtime"]),
        ("path.stat().st_mtime_ns != before", []),
    ],
)
def test_a_duration_by_the_wall_clock_is_found(code: str, found: list[str]) -> None:
    assert times_by_wall_clock(code) == found
