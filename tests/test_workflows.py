"""The workflows run only what there is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CHECKOUT

from bench.errors import UsageError
from launch.commands import gate
from launch.sweep import request
from reports import commands
from reports.arguments import Parser

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["jobs"]


def lines() -> list[str]:
    """All that the workflows run of ours."""
    steps = [step for path in WORKFLOWS for job in jobs(path).values() for step in job["steps"]]
    return [line for step in steps for line in step.get("run", "").splitlines() if "python -m" in line]


def test_there_are_some() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "perf.yml"]
    assert len(lines()) > 5


@pytest.mark.parametrize("line", lines())
def test_what_a_workflow_runs_is_a_command_of_ours(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    start, _, rest = line.partition("python -m ")
    assert start == ".venv/bin/"
    house, name, *words = shlex.split(rest.partition(" | ")[0])
    if house == "reports":
        parser = Parser(name, "")
        commands.load(name).arguments(parser)
        parser.parse_args(words)
        with pytest.raises(UsageError):
            parser.parse_args([*words, "--no-such-option"])
    elif name == "gate":
        asked = gate.read(words)
        assert request.read([*asked.words, "--out", "runs/x"]).trials
    else:
        assert (house, name) == ("launch", "run")
        assert request.read(words).trials


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_text_of_others_is_put_into_a_shell(path: Path) -> None:
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    expressions = [step["run"] for step in steps if "${{" in step.get("run", "")]
    assert expressions == []
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
